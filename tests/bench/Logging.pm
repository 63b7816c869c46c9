# tests/bench/Logging.pm
#
# What the log costs, and how far it is behind; README.md says what each
# measures.

package Logging;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter 'import';
use File::Basename qw(dirname);
use List::Util qw(max);
use Time::HiRes qw(sleep time);

use lib dirname(abs_path(__FILE__));
use Delivery;
use Measure;
use Publishing;
use Server;

our @EXPORT = qw(bench_log_publish bench_log_consume bench_log_lag);

use constant {
	BATCH => 100,
	AFTER_SECONDS => 10,
};

# with_log returns a measurement with the log on or off.
sub with_log
{
	my ($log, $measurement) = @_;

	return [
		$log => sub {
			settings('message_bus.log' => $log, autovacuum => 'on');
			my $result = $measurement->(@_);

			$result->{entries} = $log eq 'on' ? logged() : 0;
			return $result;
		}
	];
}

# logged returns how many entries the log has.
sub logged
{
	return sql('SELECT coalesce(max(size), 0) FROM message_bus.log_state');
}

# log_report compares on with off.
sub log_report
{
	my ($bench, $results) = @_;

	report(
		bench => $bench,
		unit => 'messages/s',
		figure => 'rate',
		ours => $results->{on},
		base => $results->{off},
		target => 0.93,
		better => 'higher',
		more => { entries => middle($results->{on}, 'entries') });
}

sub bench_log_publish
{
	foreach my $clients (1, 2)
	{
		say_line('log_publish_batch_%d: %d clients, %d messages a call',
			$clients, $clients, BATCH);
		log_report(
			"log_publish_batch_$clients",
			alternate(
				\&bus_reset, map { with_log($_, rate_of($clients, 'batch-bytes')) } qw(on off)));
	}
	say_line('log_publish_single: 8 clients, one message a call');
	log_report('log_publish_single',
		alternate(\&bus_reset, map { with_log($_, rate_of(8, 'single-bytes')) } qw(on off)));
}

sub bench_log_consume
{
	foreach my $case ([ 'log_consume_batch', 2, BATCH ], [ 'log_consume_single', 8, 1 ])
	{
		my ($bench, $consumers, $batch) = @$case;

		say_line('%s: %d consumers, batches of %d', $bench, $consumers, $batch);
		log_report(
			$bench,
			alternate(
				sub { bus_reset("SELECT message_bus.create_subscription('bench', 'default')") },
				map { with_log($_, drain_of('bus-ack', $consumers, $batch)) } qw(on off)));
	}
}

# bench_log_lag lets two clients publish as fast as they can, and looks every
# 100 ms how old what the log has come to is.
sub bench_log_lag
{
	my ($worst, $end, $result);

	say_line('log_lag: two clients publish as fast as they can');
	settings('message_bus.log' => 'on', autovacuum => 'on');
	bus_reset();
	pipe(my $reader, my $writer) || die "could not make a pipe: $!\n";
	my $child = fork() // die "could not fork: $!\n";
	if ($child == 0)
	{
		close $reader;
		my $figures = measure('load', '-c', 2, '-s', 3 * $seconds, 'batch-bytes');

		print $writer $figures->{rate};
		close $writer;
		# the parent's END is not for us
		require POSIX;
		POSIX::_exit(0);
	}
	close $writer;
	my @lag;
	my $running = 1;
	while ($running)
	{
		push @lag, lag_ms();
		$running = waitpid($child, 1) == 0;
		sleep 0.1;
	}
	my $rate = <$reader>;
	$end = lag_ms();
	sleep AFTER_SECONDS;
	report_alone(
		bench => 'log_lag',
		unit => 's',
		name => 'lag',
		value => max(@lag) / 1000,
		target => 10,
		better => 'lower',
		more => {
			publish_rate => short($rate),
			end_lag => short($end / 1000),
			after_lag => short(lag_ms() / 1000),
			entries => logged()
		});
}

# lag_ms returns the age of the oldest message that is not logged, 0 if there
# is none.
sub lag_ms
{
	return sql( q{SELECT coalesce(max(extract(epoch FROM clock_timestamp()
		- (SELECT created_at FROM message_bus.message AS m WHERE m.id >= s.log_to ORDER BY m.id LIMIT 1)) * 1000), 0)
		FROM message_bus.segment AS s WHERE s.log_to IS NOT NULL});
}

1;
