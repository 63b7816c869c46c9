# tests/bench/Outstanding.pm
#
# The benches of what was delivered before: dead letters that come again, and
# claims beside many that are out; README.md says what each measures.

package Outstanding;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter 'import';
use File::Basename qw(dirname);

use lib dirname(abs_path(__FILE__));
use Measure;
use Server;

our @EXPORT = qw(bench_redrive bench_outstanding);

my $redriven = $ENV{BENCH_REDRIVEN} || 98_850;
my $outstanding = $ENV{BENCH_OUTSTANDING} || 900_000;

use constant {
	CONSUMERS => 8,
	LARGE_CLAIM => 10_000,
	SINGLE_CLAIMS => 5000,
};

# stored stores messages, without waiting for the disk.
sub stored
{
	my ($messages) = @_;

	sql('SET synchronous_commit = off',
		"SELECT count(message_bus.publish_batch_bytes('bench', (SELECT"
		  . " array_agg(convert_to(rpad('', 210, 'x'), 'UTF8')) FROM generate_series(n,"
		  . " least(n + 999, $messages)))))"
		  . " FROM generate_series(1, $messages, 1000) AS n");
}

# claimed claims messages in large batches, and nacks them or leaves them.
sub claimed
{
	my ($messages, $nack) = @_;
	my $call = $nack ? "PERFORM message_bus.nack(l, delay => '0');" : '';
	my ($claim, $most) = (LARGE_CLAIM, int($messages / LARGE_CLAIM) + 1);

	sql('SET synchronous_commit = off', <<"SQL");
DO \$\$
DECLARE
	l bigint;
	n int;
	done int := 0;
BEGIN
	FOR i IN 1 .. $most LOOP
		SELECT max(lease), count(*) INTO l, n FROM message_bus.claim_bytes(
			'bench', batch => least($claim, greatest($messages - done, 1)),
			lease_for => '6 hours');
		COMMIT;
		IF n > 0 THEN $call END IF;
		COMMIT;
		done := done + n;
		EXIT WHEN n = 0 OR done >= $messages;
	END LOOP;
	IF done < $messages THEN
		RAISE '% of $messages were claimed', done;
	END IF;
END
\$\$
SQL
}

# singles claims and acks one by one.
sub singles
{
	my ($consumers, @options) = @_;
	my $result = measure('consume', '-c', $consumers, '-b', 1, @options, 'bus');

	$result->{text} = sprintf '%8.0f messages/s, claim p50 %.0f us, p99 %.0f us',
	  @$result{qw(rate claim_p50_us claim_p99_us)};
	return $result;
}

# bench_redrive compares dead letters that were redriven, all at one time,
# with as many new messages.
sub bench_redrive
{
	my $results;

	say_line('redrive: %d dead letters, %d consumers, one by one',
		$redriven, CONSUMERS);
	settings();
	$results = alternate(
		sub {
			bus_reset(
				"SELECT message_bus.alter_channel('bench', max_attempts => 1,"
				  . " dead_letter => 'first')",
				"SELECT message_bus.create_subscription('bench', 'default')");
			stored($redriven);
		},
		[
			redriven => sub {
				my ($length) = @_;

				claimed($redriven, 1);
				die "tests/bench/run: not all were redriven\n"
				  if sql("SELECT message_bus.redrive('first')") != $redriven;
				return singles(CONSUMERS, '-s', $length, '-n', $redriven);
			}
		],
		[ fresh => sub { singles(CONSUMERS, '-s', $_[0], '-n', $redriven) } ]);
	report(
		bench => 'redrive',
		unit => 'messages/s',
		figure => 'rate',
		ours => $results->{redriven},
		base => $results->{fresh},
		target => 0.5,
		better => 'higher',
		more => { messages => $redriven + 0, consumers => CONSUMERS });
}

# bench_outstanding measures single claims of what was nacked while many
# messages are out, in a pool that is a little larger.
sub bench_outstanding
{
	my ($result, $alone);

	say_line('outstanding: %d', $outstanding);
	settings(
		# a sixth of them is kept for others
		'message_bus.max_leases' => int(1.25 * $outstanding) + 8 * LARGE_CLAIM,
		'message_bus.database_share' => 100,
		'message_bus.subscription_share' => 100);
	restart();
	bus_reset("SELECT message_bus.create_subscription('bench', 'default')");
	$alone = nacked_singles();
	stored($outstanding);
	claimed($outstanding, 0);
	$result = nacked_singles();
	report_alone(
		bench => 'outstanding',
		unit => 'ms',
		name => 'claim_p50',
		value => $result->{claim_p50_us} / 1000,
		target => 2,
		better => 'lower',
		more => {
			outstanding => $outstanding + 0,
			p99 => short($result->{claim_p99_us} / 1000),
			without_p50 => short($alone->{claim_p50_us} / 1000),
			without_p99 => short($alone->{claim_p99_us} / 1000)
		});
	settings();
	restart();
}

# nacked_singles nacks some, all at one time, and claims them one by one.
sub nacked_singles
{
	my $result;

	stored(2 * SINGLE_CLAIMS);
	claimed(2 * SINGLE_CLAIMS, 1);
	sql('CHECKPOINT');
	$result = singles(1, '-u', SINGLE_CLAIMS, '-n', SINGLE_CLAIMS);
	say_line('  %s', $result->{text});
	return $result;
}

1;
