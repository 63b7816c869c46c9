# tests/t/025_nodes.t
#
# Nodes: ids and leases tell theirs, a server of another node is refused, and
# what two nodes have written is brought together in one database.

use strict;
use warnings;

use MessageBus::Delivery;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my %node = map {
	$_ => bus_node("node$_", conf => "message_bus.node = $_\n",
		databases => [ 'postgres', 'both_nodes' ], streaming => 1)
} 1 .. 3;

# dumped dumps a node.
sub dumped
{
	my ($from) = @_;
	my $dump = $node{$from}->basedir . '/dump';

	command_ok(
		[
			'pg_dump', '--format=custom', "--file=$dump", '--host',
			$node{$from}->host, '--port', $node{$from}->port, 'postgres'
		],
		"pg_dump of node $from");
	return $dump;
}

# nodes_of returns the nodes of a channel's ids, and how many these are.
sub nodes_of
{
	my ($database, $channel) = @_;

	return $node{3}->safe_psql(
		$database, qq{
		SELECT string_agg(DISTINCT message_bus.id_node(id)::text, ' ')
			|| ' ' || count(*) || ' ' || count(DISTINCT id)
		FROM message_bus.peek('$channel', max_messages => 1000)});
}

# Two nodes, with the same numbers of segments: published, acknowledged in
# part, and with a lease that is held.
my %lease;

foreach my $n (1, 2)
{
	create_bus($node{$n});
	$node{$n}->safe_psql('postgres', qq{
		SELECT message_bus.create_channel('c$n');
		SELECT message_bus.create_subscription('c$n', 's')});
	publish_some($node{$n}, "c$n", 50);
	$node{$n}->safe_psql('postgres', qq{
		SELECT count(message_bus.ack(lease, ARRAY[id]))
		FROM message_bus.claim('c$n', 's', 20)});
	$lease{$n} = $node{$n}->safe_psql('postgres',
		"SELECT lease FROM message_bus.claim('c$n', 's', 5) LIMIT 1");
	is( $node{$n}->safe_psql(
			'postgres', qq{
			SELECT message_bus.lease_node($lease{$n}), $lease{$n} < 1::bigint << 53,
				string_agg(DISTINCT message_bus.id_node(id)::text, ' '),
				max(id) < 1::bigint << 53
			FROM message_bus.message}),
		"$n|t|$n|t",
		"node $n is told by its ids and leases");

	# a crash and a restart: numbers grow, of the same node
	my $last = $node{$n}->safe_psql('postgres',
		'SELECT max(id) FROM message_bus.message');
	$node{$n}->stop($n == 1 ? 'immediate' : 'fast');
	$node{$n}->start;
	bus_ready($node{$n});
	my $id = $node{$n}->safe_psql('postgres',
		"SELECT message_bus.publish('c$n', '51')");
	cmp_ok($id, '>', $last, "node $n: ids grow over a restart");
	is(($id >> 24) & 31, $n, 'and are of the node');
	is( $node{$n}->safe_psql(
			'postgres',
			"SELECT bool_and(lease > $lease{$n} AND message_bus.lease_node(lease) = $n)"
			  . " FROM message_bus.claim('c$n', 's', 1)"),
		't',
		'so do leases');
	refused($node{$n}, $lease{$n}, 'a lease of before is refused');
}
is( ($node{1}->safe_psql('postgres', 'SELECT max(id) >> 29 FROM message_bus.message')),
	$node{2}->safe_psql('postgres', 'SELECT max(id) >> 29 FROM message_bus.message'),
	'both have used the same ordinals');

# brought together on a third
$node{3}->safe_psql('postgres', 'CREATE DATABASE both_nodes');
my @dumps = map { dumped($_) } 1, 2;
foreach my $dump (@dumps)
{
	command_ok(
		[
			'pg_restore', '--exit-on-error', '--host', $node{3}->host,
			'--port', $node{3}->port, '--dbname', 'both_nodes', $dump
		],
		'restored into one database');
}
wait_for(
	'what was restored',
	sub {
		nodes_of('both_nodes', 'c1') eq '1 51 51' && nodes_of('both_nodes', 'c2') eq '2 51 51';
	});
is( $node{3}->safe_psql(
		'both_nodes', q{
		SELECT count(*) > 100, count(*) = count(DISTINCT id),
			count(DISTINCT id >> 24) = (SELECT count(DISTINCT tableoid)
				FROM message_bus.message),
			string_agg(DISTINCT message_bus.id_node(id)::text, ' ')
		FROM message_bus.message}),
	't|t|t|1 2',
	'their ids do not meet');
is( $node{3}->safe_psql(
		'both_nodes', q{
		SELECT count(*) FROM message_bus.message_bus m
		WHERE channel IN ('c1', 'c2') AND EXISTS (SELECT FROM message_bus.get(m.id))}),
	102,
	'and all can be read by id');
is( $node{3}->safe_psql(
		'both_nodes', q{
		SELECT string_agg(DISTINCT (channel_id >> 26)::text, ' ')
		FROM message_bus.channel WHERE name <> 'default'}),
	'1 2',
	'nor do numbers of channels');
bus_ready($node{3}, 'both_nodes');
foreach my $n (1, 2)
{
	my $id = $node{3}->safe_psql('both_nodes',
		"SELECT message_bus.publish('c$n', '52')");

	is( $node{3}->safe_psql(
			'both_nodes', qq{
			SELECT $id > max(id), message_bus.id_node($id)
			FROM message_bus.message WHERE id <> $id
				AND message_bus.id_node(id) <> 3}),
		't|3',
		"c$n: publishing goes on above");
	is( $node{3}->safe_psql(
			'both_nodes', qq{
			SELECT string_agg(payload::text, ' ' ORDER BY id),
				bool_and(lease > (SELECT max(lease) FROM message_bus.ack)
					AND lease > $lease{$n} AND message_bus.lease_node(lease) = 3),
				count(message_bus.ack(lease, ARRAY[id]))
			FROM message_bus.claim('c$n', 's', 100)}),
		join(' ', 21 .. 52) . '|t|32',
		'what was not acknowledged comes, under leases above');
}
$node{3}->restart;
bus_ready($node{3}, 'both_nodes');
is( $node{3}->safe_psql(
		'both_nodes', q{
		SELECT (SELECT count(*) FROM message_bus.claim('c1', 's')) +
			(SELECT count(*) FROM message_bus.claim('c2', 's'))}),
	0,
	'and after a restart not again');

# a promotion keeps the node
my $standby = PostgreSQL::Test::Cluster->new('standby');

$node{2}->backup('backup');
$standby->init_from_backup($node{2}, 'backup', has_streaming => 1);
$standby->start;
publish_some($node{2}, 'c2', 1);
$node{2}->wait_for_catchup($standby);
my $last = $node{2}->safe_psql('postgres', 'SELECT max(id) FROM message_bus.message');
$node{2}->stop('immediate');
$standby->promote;
bus_ready($standby);
my $id = $standby->safe_psql('postgres', q{SELECT message_bus.publish('c2', '1')});
is(($id >> 24) & 31, 2, 'a standby that is promoted is of the same node');
cmp_ok($id >> 29, '>=', ($last >> 29) + 256, '256 ordinals on');
cmp_ok($id >> 29, '<', ($last >> 29) + 300, 'and not much more');
$standby->stop;

# another node than what is recorded
$node{1}->append_conf('postgresql.conf', 'message_bus.node = 4');
$node{1}->restart;
foreach my $call (
	q{publish('c1', '1')}, q{publish_bytes('c1', 'x')},
	q{claim('c1', 's')}, q{expire()})
{
	my ($name) = $call =~ /(\w+)/;
	my $started = time;

	sql_fails(
		$node{1},
		'postgres',
		"SELECT message_bus.$call",
		'55000',
		qr/message_bus\.node is 4, but this database is node 1.*HINT:  Set "message_bus\.node" to 1/s,
		"$name on another node");
	cmp_ok(time - $started, '<', 20, 'at once');
}
is( $node{1}->safe_psql(
		'postgres', q{
		SELECT ready, node, warning, last_error FROM message_bus.worker_status}),
	'f|4|message_bus.node is 4, but this database is node 1|numbering segments: '
	  . 'message_bus.node is 4, but this database is node 1',
	'worker_status says so');
like(slurp_file($node{1}->logfile),
	qr/ERROR:  message_bus\.node is 4, but this database is node 1/,
	'and the log');
is( $node{1}->safe_psql('postgres',
		q{SELECT count(*) FROM message_bus.messages WHERE channel = 'c1'}),
	51,
	'what is there can be read');
$node{1}->append_conf('postgresql.conf', 'message_bus.node = 1');
$node{1}->restart;
bus_ready($node{1});
is( $node{1}->safe_psql('postgres',
		q{SELECT message_bus.id_node(message_bus.publish('c1', '1'))}),
	1,
	'with its own node it goes on');

# nothing is recorded before there are ids
$node{3}->safe_psql('postgres', 'CREATE EXTENSION message_bus');
wait_for(
	'a numbering',
	sub {
		$node{3}->safe_psql('postgres', 'SELECT epoch > 0 FROM message_bus.server_state') eq 't';
	});
$node{3}->append_conf('postgresql.conf',
	"message_bus.node = 31\nmessage_bus.databases = 'postgres'");
$node{3}->restart;
bus_ready($node{3});
is( $node{3}->safe_psql('postgres',
		q{SELECT message_bus.id_node(message_bus.publish('default', '1'))}),
	31,
	'a database without messages may become another node');

$_->stop foreach @node{ 1, 3 };
done_testing();
