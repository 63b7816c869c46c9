# tests/bench/Segments.pm
#
# The bench of many segments; README.md says what it measures.

package Segments;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter 'import';
use File::Basename qw(dirname);

use lib dirname(abs_path(__FILE__));
use Measure;
use Server;

our @EXPORT = qw(bench_segments);

my @levels = (1, 100, $ENV{BENCH_SEGMENTS} || 2000);

# what is measured: a script of pgbench each
my %operations = (
	publish => q{SELECT message_bus.publish('bench', '1');},
	publish_transaction =>
	  q{SELECT message_bus.publish('bench', '1', transaction_id => 'x' || gen_random_uuid());},
	get => q{SELECT message_bus.get(:id);},
	get_by_transaction =>
	  q{SELECT message_bus.get_by_transaction('bench', 't1');},
	claim => q{SELECT count(message_bus.ack(lease)) FROM message_bus.claim('bench');},
	nack => q{SELECT count(message_bus.nack(lease, delay => '1 hour'))
		FROM message_bus.claim('bench');});

# bench_segments measures with ever more segments, each operation some times
# at each number.  The bus is slower with many where the ratio is below 1.
sub bench_segments
{
	my %results;

	say_line('segments: one client, %s segments', join ', ', @levels);
	settings();
	sql(making_procedure());
	foreach my $level (@levels)
	{
		my $started = time;

		# the first one is small, too: what is measured before has filled none
		max_rows_set($level > 1 ? 16 : undef);
		bus_reset(q{SELECT message_bus.create_subscription('bench', 'default')});
		segments_make($level);
		# the small segments' messages are not what is measured
		sql(q{SELECT message_bus.seek('bench', 'default', 'latest')});
		say_line('  %5d segments made in %d s', $level, time - $started);
		foreach my $pair (1 .. $pairs)
		{
			foreach my $name (sort keys %operations)
			{
				push @{ $results{$name}{$level} }, rate($name);
				say_line('  %d %5d segments %-20s %8.0f/s',
					$pair, $level, $name,
					$results{$name}{$level}[-1]{rate});
			}
		}
	}
	foreach my $name (sort keys %operations)
	{
		report(
			bench => "segments_$name",
			unit => 'calls/s',
			figure => 'rate',
			ours => $results{$name}{ $levels[-1] },
			base => $results{$name}{1},
			target => 0.67,
			better => 'higher',
			more => {
				segments => $levels[-1],
				rate_100 => middle($results{$name}{100}, 'rate')
			});
	}
}

# making_procedure returns what makes segments: one of 16 messages is soon
# full.  Each has a message with a transaction id.
sub making_procedure
{
	return q{
	CREATE OR REPLACE PROCEDURE bench_segments(wanted int) LANGUAGE plpgsql AS $$
	DECLARE
		i int := 0;
		have int;
	BEGIN
		LOOP
			SELECT count(*) INTO have FROM message_bus.segment;
			EXIT WHEN have >= wanted;
			i := i + 1;
			PERFORM message_bus.publish('bench', '1',
				transaction_id => 't' || i);
			COMMIT;
			FOR j IN 1 .. 12 LOOP
				PERFORM message_bus.publish('bench', '1');
				COMMIT;
			END LOOP;
		END LOOP;
	END $$};
}

# segments_make makes segments until there are so many, and waits until those
# that are closed are entered.
sub segments_make
{
	my ($wanted) = @_;

	if ($wanted == 1)
	{
		sql(q{SELECT message_bus.publish('bench', '1', transaction_id => 't1')});
		return;
	}
	sql('SET synchronous_commit = off', "CALL bench_segments($wanted)");
	max_rows_set(undef);
	wait_until(
		q{SELECT NOT EXISTS (SELECT FROM message_bus.segment s
			WHERE closed_at IS NOT NULL AND NOT EXISTS
				(SELECT FROM message_bus.segment_era e
				WHERE e.segment_no = s.segment_no))});
}

# max_rows_set sets how many rows a new segment has, or the default.
sub max_rows_set
{
	my ($rows) = @_;

	sql('ALTER SYSTEM '
		  . (defined $rows ? "SET message_bus.segment_max_rows = $rows"
			  : 'RESET message_bus.segment_max_rows'));
	sql('SELECT pg_reload_conf()');
	sleep 1;
}

# rate runs one operation for a while.
sub rate
{
	my ($name) = @_;
	my $id = sql(q{SELECT max(id) FROM message_bus.get_by_transaction('bench', 't1')});

	sql('SELECT count(message_bus.publish_batch(\'bench\', messages)) FROM '
		  . '(SELECT json_agg(json_build_object(\'payload\', n)) AS messages '
		  . 'FROM generate_series(1, 1000) n) AS m, generate_series(1, '
		  . int(10 * $seconds)
		  . ')') if $name eq 'claim' || $name eq 'nack';
	return { rate => calls_rate($name, $operations{$name}, '-D', "id=$id") };
}

1;
