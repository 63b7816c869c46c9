# tests/t/020_restart.t
#
# Restarts, clean and immediate: everything committed is there, numbering
# goes on above, and no segment of before is written again.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('restart');
my ($total, $last_id) = (0, 0);

create_bus($node);
$node->safe_psql('postgres', q{SELECT message_bus.create_channel('c')});

foreach my $mode ('', 'fast', 'immediate', 'fast', 'immediate')
{
	my ($ids, $first, $last);

	if ($mode)
	{
		$node->stop($mode);
		$node->start;
		bus_ready($node);
	}
	$ids = $node->safe_psql(
		'postgres', q{
		SELECT min(id), max(id) FROM (
			SELECT message_bus.publish('c', to_json(repeat(i::text, 500)),
				transaction_id => clock_timestamp()::text || i) AS id
			FROM generate_series(1, 100) i) published});
	($first, $last) = split /\|/, $ids;
	$total += 100;
	cmp_ok($first, '>', $last_id, "after '$mode': ids go on above");
	cmp_ok($first >> 24, '>', $last_id >> 24,
		"after '$mode': in a new segment") if $mode;
	$last_id = $last;
	is( $node->safe_psql(
			'postgres', q{
			SELECT count(*), count(DISTINCT transaction_id), bool_and(
				sha256 = sha256(convert_to(payload::text, 'UTF8')))
			FROM message_bus.peek('c', max_messages => 1000)}),
		"$total|$total|t",
		"after '$mode': all messages are there");
	is( $node->safe_psql(
			'postgres', q{
			SELECT count(*) FROM message_bus.peek('c',
				max_messages => 1000) p,
			LATERAL message_bus.get_by_transaction('c', p.transaction_id) g
			WHERE g.id = p.id}),
		$total,
		"after '$mode': all are found by transaction id");
}

# the worker's pages, and the settings of a reload
cmp_ok(
	$node->safe_psql('postgres',
		q{SELECT count(*) FROM message_bus.worker_status}),
	'>=', 1, 'the worker tells its status');
$node->append_conf('postgresql.conf', 'message_bus.worker_interval = 100ms');
$node->reload;
bus_ready($node);

# a worker that is asked to end comes back
my $worker = worker_pid($node, 'postgres');

$node->safe_psql('postgres', "SELECT pg_terminate_backend($worker)");
wait_for(
	'a new worker',
	sub {
		my $pid = worker_pid($node, 'postgres');
		return $pid ne '' && $pid ne $worker;
	});
bus_ready($node);
ok(1, 'a terminated worker is started again');

$node->stop;
done_testing();
