# tests/bench/Publishing.pm
#
# The benches of storing and expiring messages; README.md says what each
# measures.

package Publishing;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter 'import';
use File::Basename qw(dirname);

use lib dirname(abs_path(__FILE__));
use Measure;
use Server;

our @EXPORT = qw(bench_publish_batch bench_publish_single bench_retire rate_of);

my $rows = $ENV{BENCH_ROWS} || 1_000_000;

use constant {
	BATCH => 100,
	CLIENTS => 8,
	TTL => 5,    # seconds, of what is to be retired
};

die "tests/bench/run: BENCH_ROWS must be a multiple of " . BATCH . "\n"
  if $rows % BATCH != 0 || $rows < BATCH;

# reset_sides makes both sides anew, with empty channels "bench" and "expiring".
sub reset_sides
{
	bus_reset("SELECT message_bus.create_channel('expiring', ttl => '"
		  . TTL
		  . " seconds')");
	table_reset();
}

# rate_of returns a function for alternate() that runs the client for a time.
sub rate_of
{
	my ($connections, $mode) = @_;

	return sub {
		my ($length) = @_;
		my $result = measure('load', '-c', $connections, '-s', $length, $mode);

		$result->{text} = sprintf '%8.0f messages/s, p50 %.0f us, p99 %.0f us',
		  @$result{qw(rate p50_us p99_us)};
		return $result;
	};
}

# faster returns the name of the measurement with the higher median rate.
sub faster
{
	my ($results, @names) = @_;
	my %rate = map { $_ => median(values_of($results->{$_}, 'rate')) } @names;

	return (sort { $rate{$b} <=> $rate{$a} } @names)[0];
}

sub bench_publish_batch
{
	my ($results, $ours, $base);

	settings();
	say_line('publish_batch: one client, %d messages a call', BATCH);
	$results = alternate(
		\&reset_sides,
		map { [ $_ => rate_of(1, $_) ] }
		  qw(batch-bytes copy-binary batch-json copy-text));
	$ours = faster($results, qw(batch-bytes batch-json));
	$base = faster($results, qw(copy-binary copy-text));
	report(
		bench => 'publish_batch',
		unit => 'messages/s',
		figure => 'rate',
		ours => $results->{$ours},
		base => $results->{$base},
		target => 0.8,
		better => 'higher',
		more => { ours_is => $ours, base_is => $base });
	report(
		bench => 'publish_batch_json',
		unit => 'messages/s',
		figure => 'rate',
		ours => $results->{'batch-json'},
		base => $results->{$base},
		more => { ours_is => 'batch-json', base_is => $base });
}

sub bench_publish_single
{
	my $results;

	settings();
	say_line('publish_single: %d clients, one message a call', CLIENTS);
	$results = alternate(
		\&reset_sides,
		map { [ $_ => rate_of(CLIENTS, $_) ] } qw(single-bytes single-insert));
	report(
		bench => 'publish_single',
		unit => 'messages/s',
		figure => 'rate',
		ours => $results->{'single-bytes'},
		base => $results->{'single-insert'},
		target => 0.9,
		better => 'higher',
		more => {
			clients => CLIENTS,
			ours_p50_us => middle($results->{'single-bytes'}, 'p50_us'),
			ours_p99_us => middle($results->{'single-bytes'}, 'p99_us'),
			base_p50_us => middle($results->{'single-insert'}, 'p50_us'),
			base_p99_us => middle($results->{'single-insert'}, 'p99_us')
		});
}

# bench_retire measures with a checkpoint between storing and expiring, or
# without.
sub bench_retire
{
	my ($bench, $checkpoint) = @_;
	my ($results, %more, %sides);

	say_line('%s: %d expired messages, one client publishes meanwhile',
		$bench, $rows);
	retire_settings();
	$results = alternate(
		\&reset_sides,
		[ retire => sub { retire_segment($checkpoint, @_) } ],
		[ delete => sub { delete_rows($checkpoint, @_) } ]);
	%sides = (ours => $results->{retire}, base => $results->{delete});
	foreach my $side (qw(ours base))
	{
		$more{"${side}_publish_rate"} = middle($sides{$side}, 'op_rate');
		$more{"${side}_p99_us"} = middle($sides{$side}, 'op_p99_us');
		$more{"${side}_window_publish_rate"} = middle($sides{$side}, 'rate');
		$more{"${side}_window_p99_us"} = middle($sides{$side}, 'p99_us');
		$more{"${side}_window_max_us"} = middle($sides{$side}, 'max_us');
	}
	report(
		bench => $bench,
		unit => 'ms',
		figure => 'op_ms',
		%sides,
		target => 0.01,
		better => 'lower',
		more => { rows => $rows, %more });
	report(
		bench => "${bench}_space",
		unit => 'ms',
		figure => 'all_ms',
		%sides,
		more => { rows => $rows });
}

# retire_settings makes a segment roll when it has got all its messages, so
# that it is found closed, and the worker retire what it is asked to.
sub retire_settings
{
	settings(
		'message_bus.segment_max_rows' => 4 * int(($rows - 1) / 3),
		'message_bus.worker_interval' => '60s');
}

# retire_segment fills a segment, waits until it has been closed and all in
# it has expired, and measures expire().  That returns when the segment has
# been dropped; its files are deleted after that.  The worker serves a second
# expire() when it has done so.
sub retire_segment
{
	my ($checkpoint, $length) = @_;
	my $result;

	sql('SELECT message_bus.expire()');
	measure('load', '-n', $rows / BATCH, '-b', 'expiring', 'batch-bytes');
	wait_until("SELECT count(*) = 1 FROM message_bus.segments"
		  . " WHERE state = 'closed' AND expires_at < clock_timestamp()");
	sql('CHECKPOINT') if $checkpoint;
	$result = measure(
		'load', '-s', $length, '-o', 'SELECT message_bus.expire()',
		'-p', 'SELECT message_bus.expire()',
		'single-bytes');
	die "tests/bench/run: expire() retired $result->{result} segments\n"
	  if $result->{result} != 1;
	return retire_text($result);
}

# delete_rows fills the base's table, and measures DELETE.  What the client
# stores meanwhile has ids behind those and does not expire.
sub delete_rows
{
	my ($checkpoint, $length) = @_;
	my $result;

	measure('load', '-n', $rows / BATCH, '-t', TTL, 'copy-binary');
	wait_until(
		'SELECT max(expires_at) < clock_timestamp() FROM bench.message');
	sql('CHECKPOINT') if $checkpoint;
	$result = measure(
		'load', '-s', $length, '-i', 2 << 28,
		'-o', 'DELETE FROM bench.message WHERE expires_at <= now()',
		'-p', 'VACUUM bench.message',
		'single-insert');
	die "tests/bench/run: DELETE removed $result->{result} rows\n"
	  if $result->{result} != $rows;
	return retire_text($result);
}

sub retire_text
{
	my ($result) = @_;

	$result->{text} = sprintf
	  '%8.1f ms, with space %.1f ms; publishing %.0f/s, p99 %.0f us; in the '
	  . 'whole window %.0f/s, p99 %.0f us, longest %.0f us',
	  @$result{qw(op_ms all_ms op_rate op_p99_us rate p99_us max_us)};
	return $result;
}

1;
