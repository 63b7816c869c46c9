# tests/bench/Peer.pm
#
# The benches that compare a message's bytes, WAL and time with those of a
# queue table as pgmq 1.5 makes it; README.md says what each measures.

package Peer;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter 'import';
use File::Basename qw(dirname);
use Time::HiRes qw(sleep);

use lib dirname(abs_path(__FILE__));
use Measure;
use Server;

our @EXPORT = qw(bench_peer_space bench_peer_batch bench_peer_full
  bench_peer_single);

use constant {
	BATCH => 100,    # messages of a call
	SPACE => 300_000,    # messages whose space is measured
	FILL => 1_000_000,    # messages that fill the buffers with dirty pages
	FULL_BUFFERS => '256MB',
	WAL_FILES => 4096,    # megabytes that are there to be used again
};

# what a call is for each side
my %batch_call = (
	ours => 'batch-content',
	base => 'peer-batch',
	bare => 'copy-binary');

# reset_sides makes both sides anew.
sub reset_sides
{
	bus_reset();
	sql_file('peer.sql');
}

# fewest returns the number of pairs: three at least.
sub fewest
{
	return $pairs > 3 ? $pairs : 3;
}

# rate_of returns a function for alternate() that runs the client for a time
# and adds the server's processor time for each message.
sub rate_of
{
	my ($connections, $mode) = @_;

	return sub {
		my ($length) = @_;
		my $cpu = server_cpu();
		my $result = measure('load', '-c', $connections, '-s', $length, $mode);

		sleep 0.1;    # until the postmaster has heard of the end of each
		$result->{cpu_us} = 1000 * (server_cpu() - $cpu) / $result->{messages};
		$result->{text} =
		  sprintf '%8.0f messages/s, %.2f us of processor time each, p50 %.0f us',
		  @$result{qw(rate cpu_us p50_us)};
		return $result;
	};
}

# report_rates reports the rates of both sides, and their processor time.
sub report_rates
{
	my ($bench, $target, $results, %more) = @_;

	report(
		bench => $bench,
		unit => 'messages/s',
		figure => 'rate',
		ours => $results->{ours},
		base => $results->{base},
		target => $target,
		better => 'higher',
		more => {
			%more,
			ours_cpu_us => middle($results->{ours}, 'cpu_us'),
			base_cpu_us => middle($results->{base}, 'cpu_us')
		});
	say_line(
		'  processor time of the server: %s us a message, base %s',
		map { middle($results->{$_}, 'cpu_us') } qw(ours base));
}

# space_of returns a function for alternate() that stores messages and returns
# the bytes that each takes: in the table, its indexes and its TOAST table, and
# in WAL.
sub space_of
{
	my ($mode, $table) = @_;

	return sub {
		my $before = sql('SELECT pg_current_wal_insert_lsn()');
		my ($relation, $result);

		measure('load', '-n', SPACE / BATCH, $mode);
		$relation = sql($table);
		$result = {
			wal => sql("SELECT pg_current_wal_insert_lsn() - '$before'") / SPACE,
			heap => sql("SELECT pg_table_size('$relation')") / SPACE,
			indexes => sql("SELECT pg_indexes_size('$relation')") / SPACE
		};
		$result->{bytes} = $result->{heap} + $result->{indexes};
		$result->{text} =
		  sprintf '%.1f bytes a message: table %.1f, indexes %.1f; WAL %.1f',
		  @$result{qw(bytes heap indexes wal)};
		return $result;
	};
}

sub bench_peer_space
{
	my $results;

	settings();
	say_line('peer_space: %d messages in batches of %d', SPACE, BATCH);
	$results = alternate(
		\&reset_sides,
		[ ours => space_of(
				$batch_call{ours}, "SELECT 'message_bus.message_' || "
				  . 'max(segment_no) FROM message_bus.segments') ],
		[ base => space_of($batch_call{base}, "SELECT 'peer.queue'") ]);
	report(
		bench => 'peer_bytes',
		unit => 'bytes',
		figure => 'bytes',
		ours => $results->{ours},
		base => $results->{base},
		target => 1.1,
		better => 'lower',
		more => {
			map {
				("ours_$_" => middle($results->{ours}, $_),
					"base_$_" => middle($results->{base}, $_))
			} qw(heap indexes)
		});
	report(
		bench => 'peer_wal',
		unit => 'bytes',
		figure => 'wal',
		ours => $results->{ours},
		base => $results->{base},
		target => 0.85,
		better => 'lower');
}

# bench_peer_batch measures batches with empty tables and clean buffers.
sub bench_peer_batch
{
	my ($clients, $target) = @_;
	my $results;

	local $pairs = fewest();
	settings();
	wal_ready(WAL_FILES);
	say_line('peer_batch_%d: %d clients, %d messages a call, both emptied',
		$clients, $clients, BATCH);
	$results = alternate(\&reset_sides,
		map { [ $_ => rate_of($clients, $batch_call{$_}) ] } qw(ours base));
	report_rates("peer_batch_$clients", $target, $results,
		clients => $clients, buffers => 'empty');
}

# bench_peer_full measures batches where who needs a page must first write
# another: buffers are few, all dirty, and nothing is emptied.
sub bench_peer_full
{
	my ($clients, $target) = @_;
	my $results;

	local $pairs = fewest();
	settings(shared_buffers => FULL_BUFFERS);
	restart();
	wal_ready(WAL_FILES);
	reset_sides();
	measure('load', '-n', FILL / BATCH, $batch_call{$_}) for qw(ours base);
	say_line('peer_full_%d: %d clients, %d messages a call, buffers full',
		$clients, $clients, BATCH);
	$results = alternate(undef,
		(map { [ $_ => rate_of($clients, $batch_call{$_}) ] } qw(ours base)),
		# its ids begin anew each time, so does its table
		[ bare => sub { table_reset(); rate_of($clients, $batch_call{bare})->(@_) } ]);
	report_rates("peer_full_$clients", $target, $results,
		clients => $clients, buffers => 'full',
		bare => middle($results->{bare}, 'rate'),
		bare_ratio => middle($results->{bare}, 'rate') / middle($results->{base}, 'rate'));
	settings();
	restart();
}

# bench_peer_single compares single messages with an INSERT into a bare table.
sub bench_peer_single
{
	my ($clients, $target) = @_;
	my $results;

	local $pairs = fewest();
	settings();
	say_line('peer_single_%d: %d clients, one message a call, both emptied',
		$clients, $clients);
	$results = alternate(
		\&reset_sides,
		[ ours => rate_of($clients, 'single-content') ],
		[ base => rate_of($clients, 'plain-insert') ]);
	report_rates("peer_single_$clients", $target, $results,
		clients => $clients, buffers => 'empty');
}

1;
