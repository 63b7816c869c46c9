# tests/t/052_delivery_pools.t
#
# Pools that are full: a claim is refused with a hint, nothing is lost, and
# it goes on when there is room.

use strict;
use warnings;

use MessageBus::Delivery;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('delivery_pools',
	conf => "message_bus.worker_interval = 100ms\n"
	  . "message_bus.max_leases = 16\n"
	  . "message_bus.max_subscriptions = 16\n");
my $claim =
  q{SELECT * FROM message_bus.claim('c', 's', 1, lease_for => '1 hour')};

create_bus($node);
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel('c');
	SELECT message_bus.create_subscription('c', 's');
	SELECT message_bus.create_subscription('c', 'o', ordered => true)});
publish_some($node, 'c', 40);

# messages that are out
is(claim_all($node, 'c', batch => 10),
	join(' ', map { "$_:1" } 1 .. 10), 'ten are claimed');
is(claim_all($node, 'c', batch => 10),
	join(' ', map { "$_:1" } 11 .. 16), 'the next claim gets what has room');
sql_fails($node, 'postgres', $claim, '53400',
	qr/too many messages are claimed.*HINT:.*max_leases/s, 'a full pool');
sql_fails($node, 'postgres', $claim =~ s/'s'/'o'/r, '53400',
	qr/HINT:.*max_leases/s, 'also for another subscription');
is( $node->safe_psql(
		'postgres', q{SELECT message_bus.ack(min(lease)) FROM message_bus.leases}
	),
	10,
	'an ack');
is(claim_all($node, 'c', batch => 5),
	join(' ', map { "$_:1" } 17 .. 21), 'makes room');
is(claim_all($node, 'c', batch => 5, subscription => 'o'),
	join(' ', map { "$_:1" } 1 .. 5), 'for the other subscription too');

# everything comes to its end, one by one
my $left = wait_for(
	'all to be delivered',
	sub {
		$node->safe_psql(
			'postgres', q{
			SELECT message_bus.ack(lease)
			FROM (SELECT DISTINCT lease FROM message_bus.leases) l});
		claim_all($node, 'c', batch => 7);
		claim_all($node, 'c', batch => 7, subscription => 'o');
		return done_count($node, 'c') == 80;
	});
is( $node->safe_psql(
		'postgres', q{
		SELECT string_agg(lag_messages || ':' || in_flight, ' ')
		FROM message_bus.subscriptions}),
	'0:0 0:0',
	'nothing is left');

# failed messages of an ordered subscription stay in memory
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.publish('c', to_json(i), key => i::text)
	FROM generate_series(1, 20) i;
	SELECT message_bus.nack(max(lease), delay => '1 hour')
	FROM message_bus.claim('c', 'o', 10)});
is( $node->safe_psql(
		'postgres', q{
		SELECT retrying FROM message_bus.subscriptions
		WHERE subscription = 'o'}),
	10,
	'ten of an ordered subscription wait for a retry');
is(claim_all($node, 'c', batch => 3), '1:1 2:1 3:1',
	'others can still be claimed');

# subscriptions; one is in use
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.drop_subscription('c', 'o');
	SELECT message_bus.create_channel('many');
	SELECT message_bus.create_subscription('many', i::text)
	FROM generate_series(1, 20) i;
	SELECT message_bus.publish('many', '1')});

my ($served, $refused) = (0, 0);

foreach my $i (1 .. 20)
{
	my ($status, $out, $err) = $node->psql('postgres',
		"SELECT id FROM message_bus.claim('many', '$i', lease_for => "
		  . "'100 milliseconds')");

	$served++ if $status == 0;
	$refused++
	  if $err =~ /too many subscriptions are in use.*HINT:.*max_subscriptions/s;
}
is("$served $refused", '15 5', 'claims beyond max_subscriptions are refused');
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.drop_subscription('many', i::text)
	FROM generate_series(1, 5) i});
wait_for(
	'dropped subscriptions to make room',
	sub {
		my ($status, $out) = $node->psql('postgres',
			q{SELECT count(*) FROM message_bus.claim('many', '20')});
		return $status == 0 && $out eq '1';
	});
ok(1, 'a dropped subscription makes room');

$node->stop;
done_testing();
