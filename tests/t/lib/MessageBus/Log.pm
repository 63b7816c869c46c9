# tests/t/lib/MessageBus/Log.pm
#
# What the tests of the log share: that it has each row once, and others' code
# that judges what it shows.

package MessageBus::Log;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(log_covered log_faults log_has_all log_judge_built log_judged
  of_base64);

# log_covered waits until a checkpoint covers all rows there are; in the
# database postgres, unless it is told another.
sub log_covered
{
	my ($node, $database) = @_;

	wait_for(
		'all to be logged',
		sub {
			my ($status, $out) = $node->psql(
				$database // 'postgres', q{
				SELECT facts_to = (SELECT next FROM message_bus.fact_numbers())
					AND facts_pending = '{}' AND actions_pending = '{}'
					AND NOT EXISTS (SELECT FROM message_bus.log_action WHERE no < 0)
					AND size = (SELECT max(size) FROM message_bus.log_checkpoint)
					AND NOT EXISTS (SELECT FROM message_bus.segment AS s
						WHERE s.log_id IS DISTINCT FROM log_state.log_id OR log_to IS NULL OR log_pending <> '{}' OR log_facts <> '{}')
					AND (SELECT sum(n) FROM message_bus.log_run JOIN message_bus.segment USING (segment_no)
						WHERE kind = 0) = (SELECT count(*) FROM message_bus.message)
				FROM message_bus.log_state});

			return $status == 0 && $out eq 't';
		});
	return;
}

# log_has_all checks that the log has each row of the segments that are there
# once, and each action, that its runs are all it has, and that it finds no
# fault.
sub log_has_all
{
	my ($node, $what, $database) = @_;

	log_covered($node, $database);
	is( $node->safe_psql(
			$database // 'postgres', q{
			WITH logged AS (
				SELECT kind, segment_no, lo + coalesce(o, 0) + g AS number
				FROM message_bus.log_run
					LEFT JOIN LATERAL (SELECT runs[2 * i - 1] AS o, runs[2 * i] AS len
						FROM generate_series(1, cardinality(runs) / 2) AS i) AS r ON true,
					LATERAL generate_series(0, coalesce(len, n) - 1) AS g
				WHERE kind = 4 OR segment_no IN (SELECT segment_no FROM message_bus.segment)),
			there AS (
				SELECT 0 AS kind, id >> 24 AS segment_no, id AS number FROM message_bus.message
				UNION ALL SELECT 1, message_id >> 24, no FROM message_bus.event
				UNION ALL SELECT 2, lo >> 24, no FROM message_bus.ack
				UNION ALL SELECT 3, message_id >> 24, no FROM message_bus.failure
				UNION ALL SELECT 4, 0, no FROM message_bus.log_action)
			SELECT (SELECT count(*) FROM (TABLE logged EXCEPT ALL TABLE there) AS x),
				(SELECT count(*) FROM (TABLE there EXCEPT ALL TABLE logged) AS x),
				(SELECT size FROM message_bus.log_state) - (SELECT sum(n) FROM message_bus.log_run),
				(SELECT count(*) FROM message_bus.log_run WHERE 0 > ANY (runs))}),
		'0|0|0|0',
		$what);
	is($node->safe_psql($database // 'postgres', 'SELECT * FROM message_bus.audit_verify()'),
		'', "$what: verified");
	return;
}

# log_faults returns what audit_verify() finds, after some statements that are
# rolled back; each as "kind id fault", by these.
sub log_faults
{
	my ($node, @statements) = @_;

	return $node->safe_psql('postgres', join(";\n",
			'BEGIN', @statements,
			q{SELECT concat_ws(' ', kind, id, fault) FROM message_bus.audit_verify()
				ORDER BY kind, id, fault},
			'ROLLBACK'));
}

# of_base64 is the SQL that gives bytes as base64 in one line.
sub of_base64
{
	my ($bytes) = @_;

	return "translate(encode($bytes, 'base64'), E'\\n', '')";
}

# log_judge_built compiles the judge (tests/t/log_verify), or another program
# beside it; false where there is no Go.
sub log_judge_built
{
	my $program = shift // 'log_verify';

	local $ENV{GO111MODULE} = 'off';
	local $ENV{GOPATH} = '/usr/share/gocode';
	local $ENV{GOCACHE} = "$ENV{TESTDATADIR}/gocache";
	local $ENV{GOFLAGS} = '';

	return system("cd \"\$MBUS_TREE/tests/t/$program\" && "
		  . "go build -o \"\$TESTDATADIR/$program\" .") == 0;
}

# log_judged returns what it says of each case.
sub log_judged
{
	my (@cases) = @_;
	my ($out, $err);
	my @verdicts;

	IPC::Run::run(["$ENV{TESTDATADIR}/log_verify"],
		'<', \join('', map { "$_\n" } @cases), '>', \$out, '2>', \$err)
	  or die "log_verify: $err";
	@verdicts = split /\n/, $out;
	die 'log_verify has judged ' . @verdicts . ' of ' . @cases
	  if @verdicts != @cases;
	return @verdicts;
}

1;
