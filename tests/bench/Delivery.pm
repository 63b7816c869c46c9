# tests/bench/Delivery.pm
#
# The benches of claiming and acking messages; README.md says what each
# measures.

package Delivery;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter 'import';
use File::Basename qw(dirname);
use IPC::Open2;
use List::Util qw(max sum);
use Time::HiRes qw(sleep time);

use lib dirname(abs_path(__FILE__));
use Measure;
use Server;

our @EXPORT = qw(bench_consume bench_consume_peer bench_consume_pgq bench_hold bench_backlog
  bench_channels bench_wake bench_delayed bench_idle_waiters
  bench_acked_size drain_of);

my $hold_seconds = $ENV{BENCH_HOLD_SECONDS} || 60;
my $backlog = $ENV{BENCH_BACKLOG} || 5_000_000;
my $acked_messages = $ENV{BENCH_ACKED_MESSAGES} || 20_000_000;

use constant {
	BATCH => 100,         # messages of a publish, and of most claims
	LARGE_BATCH => 1000,
	PGQ_BATCH => 5000,    # at which PgQ is fastest
	SMALL_BACKLOG => 10_000,
	WAITERS => 100,
	IDLE_SECONDS => 10,
};

# how messages are stored for each kind of claim
my %publish_call =
  (bus => 'batch-bytes', 'bus-ack' => 'batch-bytes', pgq => 'pgq-batch',
	peer => 'peer-batch',
	map { $_ => 'queue-batch' } qw(queue indexed plain));

# messages that are stored for each second of a measurement in batches: what
# a side gets through in a half of that or less
my %stored = (bus => 100_000, 'bus-ack' => 120_000, pgq => 50_000,
	queue => 50_000, indexed => 30_000, peer => 30_000, plain => 150_000);

# size of all tables and indexes of the extension, and of all catalogs
my $size_query = <<'SQL';
SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
WHERE relkind = 'r' AND relnamespace IN
	('message_bus'::regnamespace, 'pg_catalog'::regnamespace)
SQL

# queue_settings turns autovacuum on, which a queue table needs, and makes it
# as quick as it can be; for the bus it runs too.
sub queue_settings
{
	my (%more) = @_;

	settings(
		autovacuum => 'on',
		autovacuum_naptime => '1s',
		autovacuum_vacuum_cost_delay => '0',
		%more);
}

# reset_sides makes the bus and the queue table anew.
sub reset_sides
{
	bus_reset("SELECT message_bus.create_subscription('bench', 'default')");
	sql_file('queue.sql');
}

# fill stores messages, without waiting for the disk.
sub fill
{
	my ($kind, $messages, @options) = @_;
	my $connections = $kind eq 'pgq' ? 1 : 2;

	local $ENV{PGOPTIONS} = '-c synchronous_commit=off';
	measure('load', '-c', $connections, '-n',
		int($messages / BATCH / $connections),
		@options, $publish_call{$kind});
	# two ticks: what is behind the last one is in no batch
	sql("SELECT pgq.force_tick('bench')", "SELECT pgq.ticker('bench')")
	  if $kind eq 'pgq';
	sql('ANALYZE bench.queue') if $publish_call{$kind} eq 'queue-batch';
	sql('ANALYZE peer.queue') if $kind eq 'peer';
}

# drain_of returns a function for alternate() that stores messages and claims
# and acks them, for the time or until there are no more; with "each", all by
# each consumer.
sub drain_of
{
	my ($kind, $consumers, $batch, $each) = @_;
	my $rate = $batch == 1 ? 25_000 : $stored{$kind};

	$rate /= $consumers if $each;
	return sub {
		my ($length) = @_;
		my $messages = 2 * BATCH * int($rate * $length / (2 * BATCH));
		my @options = ('-c', $consumers, '-b', $batch, '-s', $length);

		sql_file('queue_indexed.sql') if $kind eq 'indexed' || $kind eq 'plain';
		fill($kind, $messages);
		# what was stored is not what is measured
		wait_until(q{SELECT count(*) = 0 FROM message_bus.segment
			WHERE log_to IS NULL OR EXISTS (SELECT FROM message_bus.message WHERE id >= log_to AND id >> 24 = segment_no)})
		  if sql('SHOW message_bus.log') eq 'on';
		sql('CHECKPOINT');
		return drained(
			measure('consume', @options,
				$each ? ('-e', '-n', $messages * $consumers) :
				  ('-n', $messages),
				$kind));
	};
}

sub drained
{
	my ($result) = @_;

	$result->{text} = sprintf
	  '%8.0f messages/s, claim p50 %.0f us, p99 %.0f us, ack p50 %.0f us, '
	  . 'p99 %.0f us; %.1f s',
	  @$result{qw(rate claim_p50_us claim_p99_us ack_p50_us ack_p99_us
		  seconds)};
	return $result;
}

# latencies returns the medians of the latencies of both sides.
sub latencies
{
	my (%sides) = @_;
	my %more;

	foreach my $side (sort keys %sides)
	{
		foreach my $figure (qw(claim_p50_us claim_p99_us ack_p50_us ack_p99_us))
		{
			$more{"${side}_$figure"} = middle($sides{$side}, $figure);
		}
	}
	return %more;
}

sub bench_consume
{
	my ($bench, $consumers, $batch, $target) = @_;
	my ($results, %sides);

	say_line('%s: %d consumers, batches of %d', $bench, $consumers, $batch);
	queue_settings();
	$results = alternate(
		\&reset_sides,
		map { [ $_ => drain_of($_, $consumers, $batch) ] }
		  qw(bus bus-ack queue indexed plain));
	%sides = (ours => $results->{bus}, base => $results->{queue});
	report(
		bench => $bench,
		unit => 'messages/s',
		figure => 'rate',
		%sides,
		target => $target,
		better => 'higher',
		more => {
			consumers => $consumers,
			batch => $batch,
			latencies(%sides),
			joined => middle($results->{'bus-ack'}, 'rate'),
			joined_ratio => ratio_of($results, 'bus-ack', 'queue'),
			indexed => middle($results->{indexed}, 'rate'),
			indexed_ratio => ratio_of($results, 'bus', 'indexed'),
			plain => middle($results->{plain}, 'rate'),
			plain_ratio => ratio_of($results, 'plain', 'queue')
		});
	say_line(
		'  the ack in the next claim: %.0f; the usual queue table: %.0f; '
		  . 'least statements: %.0f messages/s',
		map { middle($results->{$_}, 'rate') } qw(bus-ack indexed plain));
}

# bench_consume_peer measures claims that ack the batch before against the
# peer's read and delete.
sub bench_consume_peer
{
	my ($bench, $consumers, $batch, $target) = @_;
	my $results;

	say_line('%s: %d consumers, batches of %d', $bench, $consumers, $batch);
	queue_settings();
	$results = alternate(
		sub {
			reset_sides();
			sql_file('peer.sql');
		},
		map { [ $_ => drain_of($_, $consumers, $batch) ] } qw(bus-ack peer));
	report(
		bench => $bench,
		unit => 'messages/s',
		figure => 'rate',
		ours => $results->{'bus-ack'},
		base => $results->{peer},
		target => $target,
		better => 'higher',
		more => { consumers => $consumers, batch => $batch });
}

# ratio_of returns the median of the ratios of two kinds' rates.
sub ratio_of
{
	my ($results, $one, $other) = @_;
	my @rate = values_of($results->{$one}, 'rate');
	my @base = values_of($results->{$other}, 'rate');

	return short(median(map { $rate[$_] / $base[$_] } 0 .. $#rate));
}

# pgq_reset makes the bus and the PgQ queue anew, with a tick each "batch"
# events, and with these readers of both.
sub pgq_reset
{
	my ($batch, @readers) = @_;

	bus_reset(map { "SELECT message_bus.create_subscription('bench', '$_')" }
		  @readers);
	sql('SET client_min_messages = error',
		'DROP EXTENSION IF EXISTS pgq CASCADE',
		'DROP SCHEMA IF EXISTS pgq CASCADE',
		'CREATE EXTENSION pgq',
		"SELECT pgq.create_queue('bench')",
		"SELECT pgq.set_queue_config('bench', 'ticker_max_count', '$batch')",
		"SELECT pgq.set_queue_config('bench', 'ticker_max_lag', '1 hour')",
		map { "SELECT pgq.register_consumer('bench', '$_')" } @readers);
}

sub bench_consume_pgq
{
	if (sql("SELECT count(*) FROM pg_available_extensions WHERE name = 'pgq'")
		eq '0')
	{
		say_line('consume_pgq: skipped, there is no PgQ here');
		return;
	}
	foreach my $consumers (1, 8)
	{
		consume_pgq("consume_pgq_$consumers", $consumers, BATCH, target => 1,
			better => 'higher');
		consume_pgq("consume_pgq_${consumers}_large", $consumers, PGQ_BATCH);
	}
	sql('SET client_min_messages = error',
		'DROP EXTENSION pgq CASCADE',
		'DROP SCHEMA IF EXISTS pgq CASCADE');
}

# consume_pgq compares consumers that each get all messages, as a PgQ queue
# and a channel with several subscriptions give them.
sub consume_pgq
{
	my ($bench, $consumers, $batch, @target) = @_;
	my @readers = $consumers == 1 ? ('default') : map { "bench_$_" }
	  1 .. $consumers;
	my ($results, %sides);

	say_line('%s: %d consumers that get all, batches of %d',
		$bench, $consumers, $batch);
	queue_settings();
	$results = alternate(
		sub { pgq_reset($batch, @readers) },
		map {
			[ $_ => drain_of($_, $consumers, $batch, $consumers > 1) ]
		} qw(bus pgq));
	%sides = (ours => $results->{bus}, base => $results->{pgq});
	report(
		bench => $bench,
		unit => 'messages/s',
		figure => 'rate',
		%sides, @target,
		more =>
		  { consumers => $consumers, batch => $batch, latencies(%sides) });
}

# bench_hold keeps the load steady while a transaction is open, and compares
# the end with the beginning; and, for comparison, without the transaction.
sub bench_hold
{
	my ($bench) = @_;
	my $snapshot = 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1';
	my %open = (
		snapshot_hold => { bus => $snapshot, queue => $snapshot },
		publish_hold => {
			bus => "BEGIN; SELECT message_bus.publish_bytes('bench', '1')",
			queue => "BEGIN; INSERT INTO bench.queue (payload) VALUES ('1')"
		});
	my %result = (
		queue => hold('queue', 'queue', $open{$bench}{queue}),
		bus => hold('bus', 'bus', $open{$bench}{bus}),
		without => hold('without', 'bus', 'SELECT 1'));
	my %ratio = map {
		$_ => $result{$_}{last_rate} / $result{$_}{first_rate}
	} keys %result;
	my %name = (bus => 'ours', queue => 'base', without => 'without');

	report_alone(
		bench => $bench,
		unit => 'ratio',
		name => 'ratio',
		value => $ratio{bus},
		target => 0.9,
		better => 'higher',
		more => {
			seconds => $hold_seconds + 0,
			base_ratio => short($ratio{queue}),
			without_ratio => short($ratio{without}),
			map {
				("$name{$_}_first" => short($result{$_}{first_rate}),
					"$name{$_}_last" => short($result{$_}{last_rate}))
			} keys %name
		});
}

# hold runs one publisher and two consumers, and opens a transaction when
# some has gone through.
sub hold
{
	my ($name, $kind, $open) = @_;
	my %uncounted = (bus => 1_000_000, queue => 200_000);
	my $result;

	say_line('  %-7s one publisher, two consumers, %g s', $name,
		$hold_seconds);
	queue_settings(min_wal_size => '12GB');
	reset_sides();
	wal_ready(6144);
	memory_ready();
	$result = measure(
		'consume', '-c', 2, '-b', BATCH, '-p', 1, '-m', $publish_call{$kind},
		'-k', SMALL_BACKLOG, '-u', $uncounted{$kind}, '-s', $hold_seconds,
		'-o', $open, $kind);
	say_line('  %-7s messages/s in each sixth of the time: %s',
		$name, $result->{rates});
	return $result;
}

# bench_backlog takes 10,000 messages again and again, of which all but the
# first 2,000 count: from a channel that has no others, and from one that has
# 5 million more.
sub bench_backlog
{
	my $rounds = 10;
	my %results;

	say_line('backlog: one consumer, batches of %d', BATCH);
	settings();
	bus_reset(
		"SELECT message_bus.create_subscription('bench', 'default')",
		"SELECT message_bus.create_channel('bench_1', ttl => '1 day')",
		"SELECT message_bus.create_subscription('bench_1', 'default')");
	fill('bus', $backlog + SMALL_BACKLOG * $rounds * ($pairs + 1));
	sql('CHECKPOINT');
	foreach my $pair (0 .. $pairs)
	{
		my @turn = $pair % 2 ? qw(small large) : qw(large small);

		foreach my $name (@turn)
		{
			my $result = take_rounds($name, $rounds);

			push @{ $results{$name} }, $result if $pair > 0;
			say_line('  %d %-6s %8.0f messages/s, of claims alone %8.0f',
				$pair, $name, $result->{rate}, $result->{claim_rate})
			  if $pair > 0;
		}
	}
	report(
		bench => 'backlog',
		unit => 'messages/s',
		figure => 'claim_rate',
		ours => $results{large},
		base => $results{small},
		target => 0.9,
		better => 'higher',
		more => { backlog => $backlog + 0, base_backlog => SMALL_BACKLOG });
	report(
		bench => 'backlog_with_acks',
		unit => 'messages/s',
		figure => 'rate',
		ours => $results{large},
		base => $results{small});
}

# take_rounds returns the rates of some rounds of 10,000 messages.
sub take_rounds
{
	my ($name, $rounds) = @_;
	my $uncounted = 2000;
	my @results;

	foreach (1 .. $rounds)
	{
		my @options =
		  ('-u', $uncounted, '-n', SMALL_BACKLOG - $uncounted, 'bus');

		if ($name eq 'small')
		{
			fill('bus', SMALL_BACKLOG, '-b', 'bench_1');
			unshift @options, '-C', 1;
		}
		push @results, measure('consume', @options);
	}
	return {
		map {
			my $figure = $_;
			$figure =>
			  $rounds / sum(map { 1 / $_ } values_of(\@results, $figure))
		} qw(rate claim_rate) };
}

# bench_channels compares many channels with one that gets as many messages,
# in batches of a size.
sub bench_channels
{
	my ($name, $many, $batch) = @_;
	my %results;

	say_line('%s: one consumer, batches of %d', $name, $batch);
	settings();
	bus_reset("SELECT message_bus.create_channel('bench_' || n, ttl => '1 day'),"
		  . " message_bus.create_subscription('bench_' || n, 'default')"
		  . " FROM generate_series(1, $many) AS n");
	foreach my $pair (0 .. $pairs)
	{
		foreach my $channels ($pair % 2 ? (1, $many) : ($many, 1))
		{
			my $result = take_channels($channels, $many, $batch);

			push @{ $results{$channels} }, $result if $pair > 0;
			say_line(
				'  %d %5d channels %8.0f messages/s; published at %8.0f/s',
				$pair, $channels, $result->{rate}, $result->{publish_rate})
			  if $pair > 0;
		}
	}
	report(
		bench => $name,
		unit => 'messages/s',
		figure => 'rate',
		ours => $results{$many},
		base => $results{1},
		target => 0.8,
		better => 'higher',
		more => {
			channels => $many,
			base_channels => 1,
			batch => $batch,
			ours_publish_rate => middle($results{$many}, 'publish_rate'),
			base_publish_rate => middle($results{1}, 'publish_rate')
		});
}

# take_channels publishes three batches to each of many channels, or as many
# to one, and claims them, in the same order.  The first batch of each does
# not count.
sub take_channels
{
	my ($channels, $many, $batch) = @_;
	my $batches = 3;
	my $total = $many * $batch * $batches;
	my $begin = time;
	my ($publishing, $result);

	sql('SET synchronous_commit = off',
		sprintf(<<'SQL', $batch, $many * $batches, $channels));
DO $$
DECLARE
	payloads bytea[] := array_agg(convert_to(rpad(n::text, 210, 'x'), 'UTF8'))
		FROM generate_series(1, %d) AS n;
BEGIN
	FOR n IN 0 .. %d - 1 LOOP
		PERFORM message_bus.publish_batch_bytes(
			'bench_' || n %% %d + 1, payloads);
		COMMIT;
	END LOOP;
END
$$
SQL
	$publishing = time - $begin;
	sql('CHECKPOINT');
	$result = measure('consume', '-C', $channels, '-b', $batch,
		'-u', $total / $batches, '-n', $total - $total / $batches, 'bus');
	$result->{publish_rate} = $total / $publishing;
	return $result;
}

sub bench_wake
{
	my ($results, @figures);
	my $times = int(max(20, 15 * $seconds));

	say_line('wake: %d times a run', $times);
	settings();
	foreach my $round (0 .. $pairs)
	{
		my $result;

		reset_sides();
		table_reset();
		sql('CHECKPOINT');
		$result = measure('latency', '-n', $round == 0 ? 20 : $times, 'wake');
		next if $round == 0;
		push @$results, $result;
		say_line(
			'  %d wake p50 %.0f us, p99 %.0f us; publish p50 %.0f us; '
			  . 'INSERT p50 %.0f us, p99 %.0f us',
			$round,
			@$result{
				qw(wake_p50_us wake_p99_us publish_p50_us insert_p50_us
				  insert_p99_us)});
	}
	@figures = map {
		{ wake => $_->{wake_p50_us}, insert => $_->{insert_p50_us} }
	} @$results;
	report(
		bench => 'wake',
		unit => 'us',
		figure => 'us',
		ours => [ map { { us => $_->{wake} } } @figures ],
		base => [ map { { us => $_->{insert} } } @figures ],
		target => 3,
		better => 'lower',
		more => {
			samples => $times,
			ours_p99_us => middle($results, 'wake_p99_us'),
			base_p99_us => middle($results, 'insert_p99_us'),
			ours_max_us => short(max(values_of($results, 'wake_max_us'))),
			publish_p50_us => middle($results, 'publish_p50_us')
		});
}

sub bench_delayed
{
	my $rounds = int(max(3, 2 * $seconds));
	my $result;

	say_line('delayed: %d times 10 messages, one waiter', $rounds);
	settings();
	reset_sides();
	$result = measure('latency', '-n', $rounds, 'delayed');
	report_alone(
		bench => 'delayed',
		unit => 'ms',
		name => 'lateness',
		value => $result->{lateness_p50_us} / 1000,
		target => 20,
		better => 'lower',
		more => {
			p99 => short($result->{lateness_p99_us} / 1000),
			max => short($result->{lateness_max_us} / 1000),
			min => short($result->{lateness_min_us} / 1000),
			samples => $result->{samples} + 0,
			early => $result->{early} + 0
		});
	die "tests/bench/run: $result->{early} messages came early\n"
	  if $result->{early} > 0;
}

# bench_idle_waiters measures the processor time of the whole server while
# sessions wait, and while there are none.
sub bench_idle_waiters
{
	my %statement = (
		idle_claim => "SELECT * FROM message_bus.claim_bytes('bench',"
		  . " wait => '60 s')",
		idle_wait => "CALL message_bus.wait(ARRAY['bench'])");
	my $without;

	settings();
	reset_sides();
	sql('CHECKPOINT');
	sleep 2;
	$without = idle_cpu();
	foreach my $bench (sort keys %statement)
	{
		report_alone(
			bench => $bench,
			unit => 'ms',
			name => 'cpu',
			value => cpu_with($statement{$bench}),
			target => 100,
			better => 'lower',
			more => {
				waiters => WAITERS,
				seconds => IDLE_SECONDS,
				cpu_without => short($without)
			});
	}
}

sub idle_cpu
{
	my $before = cluster_cpu();

	sleep IDLE_SECONDS;
	return cluster_cpu() - $before;
}

sub cpu_with
{
	my ($statement) = @_;
	my $pid = open2(my $output, my $input, program('latency'), '-c', WAITERS,
		'-o', $statement, 'idle');
	my $line = <$output>;
	my $cpu;

	die "tests/bench/run: the waiters do not wait\n" if !defined $line;
	$cpu = idle_cpu();
	close($input);
	waitpid($pid, 0);
	die "tests/bench/run: the waiters have failed\n" if $? != 0;
	return $cpu;
}

# bench_acked_size publishes, claims and acks until all has been through, with
# a backlog that is small against that, and watches how much space the
# extension and the catalogs take.
sub bench_acked_size
{
	my $result;

	say_line('acked_size: %d messages, autovacuum off', $acked_messages);
	settings();
	bus_reset(
		"SELECT message_bus.create_channel('acked', ttl => '1 day',"
		  . " retention => 'acked')",
		"SELECT message_bus.create_subscription('acked', 'default')");
	sql('CHECKPOINT');
	$result = measure(
		'consume', '-b', LARGE_BATCH, '-p', 1,
		'-m', 'batch-large', '-B', 'acked',
		'-k', 10 * SMALL_BACKLOG, '-n', $acked_messages,
		'-q', $size_query, 'bus');
	say_line('  %.0f messages/s, highest size %.0f MB; after its end %.0f MB',
		$result->{rate},
		$result->{size} / 1e6,
		sql($size_query) / 1e6);
	report_alone(
		bench => 'acked_size',
		unit => 'ratio',
		name => 'ratio',
		value => $result->{size_last} / $result->{size_first},
		target => 1.2,
		better => 'lower',
		more => {
			messages => $acked_messages + 0,
			rate => short($result->{rate}),
			size_mb => short($result->{size} / 1e6),
			size_first_mb => short($result->{size_first} / 1e6),
			size_last_mb => short($result->{size_last} / 1e6)
		});
}

1;
