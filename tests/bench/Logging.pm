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
use List::Util qw(max min);
use Time::HiRes qw(sleep time);

use lib dirname(abs_path(__FILE__));
use Delivery;
use Measure;
use Publishing;
use Server;

our @EXPORT = qw(bench_log_publish bench_log_consume bench_log_lag bench_audit);

my $audited = $ENV{BENCH_AUDITED} || 1_000_000;

use constant {
	BATCH => 100,
	AFTER_SECONDS => 10,
	PROOFS => 2000,
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

# bench_audit measures what is asked of a log with many messages: whether all
# is as it was logged, proofs, and how large it is.
sub bench_audit
{
	say_line('audit: %d messages', $audited);
	settings('message_bus.log' => 'on');
	bus_reset();
	sql('SET synchronous_commit = off',
		"SELECT count(message_bus.publish_batch_bytes('bench', (SELECT"
		  . " array_agg(convert_to(rpad(i::text, 210, 'x'), 'UTF8')) FROM generate_series(n,"
		  . " least(n + 999, $audited)) AS i)))"
		  . " FROM generate_series(1, $audited, 1000) AS n");
	wait_until("SELECT max(size) > $audited FROM message_bus.log_checkpoint");
	sql('SET client_min_messages = error', 'DROP TABLE IF EXISTS audited',
		'CREATE TABLE audited AS SELECT row_number() OVER () AS i, id FROM (SELECT id FROM message_bus.message'
		  . ' TABLESAMPLE BERNOULLI (' . min(100, 125 * PROOFS / $audited) . ') LIMIT ' . PROOFS . ') AS m',
		'CREATE UNIQUE INDEX ON audited (i)',
		'VACUUM ANALYZE');
	my $verified = alternate(
		undef,
		timed('ours', 'SELECT count(*) FROM message_bus.audit_verify()', 0),
		timed('base', 'SELECT count(sha256(payload)) FROM message_bus.message', $audited + 1));
	report(
		bench => 'audit_verify',
		unit => 'messages/s',
		figure => 'rate',
		ours => $verified->{ours},
		base => $verified->{base},
		target => 0.5,
		better => 'higher');
	my $proved = alternate(
		undef,
		asked('ours', 'audit_proof'),
		asked('base', 'get'));
	report(
		bench => 'audit_proof',
		unit => 'us',
		figure => 'us',
		ours => $proved->{ours},
		base => $proved->{base},
		target => 20,
		better => 'lower');
	report_alone(
		bench => 'log_bytes',
		unit => 'bytes',
		name => 'bytes',
		value => sql( q{SELECT sum(pg_total_relation_size('message_bus.' || t))
			FROM unnest(ARRAY['log_tile', 'log_run', 'log_action', 'log_checkpoint']) AS t}) / logged(),
		target => 40,
		better => 'lower',
		more => { entries => logged() });
}

# asked returns a measurement of one client that calls a function of ids in
# turn, each a statement.
sub asked
{
	my ($name, $function) = @_;

	return [
		$name => sub {
			my $us = 1e6 / calls_rate("audit_$function",
				"\\set i random(1, " . PROOFS . ")\n"
				  . "SELECT message_bus.$function((SELECT id FROM audited WHERE i = :i));");

			return { us => $us, text => sprintf '%8.0f us', $us };
		}
	];
}

# timed returns a measurement of how long a statement takes, whose result must
# be a number.
sub timed
{
	my ($name, $statement, $expected) = @_;

	return [
		$name => sub {
			my $started = time;
			# one process, as audit_verify() is
			my $got = sql('SET max_parallel_workers_per_gather = 0', $statement);
			my $took = time - $started;

			die "tests/bench/run: $got is not $expected: $statement\n" if $got != $expected;
			return {
				rate => $audited / $took,
				text => sprintf '%8.0f ms', 1000 * $took
			};
		}
	];
}

1;
