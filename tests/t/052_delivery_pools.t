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
	  . "message_bus.database_share = 100\n"
	  . "message_bus.subscription_share = 100\n"
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
	qr/too many messages are claimed from subscription "s" of channel "c".*It holds 16 messages and may hold 16.*max_leases.*HINT:.*release_lease/s, 'a full pool');
sql_fails($node, 'postgres', $claim =~ s/'s'/'o'/r, '53400',
	qr/max_leases.*HINT:.*release_lease/s, 'also for another subscription');
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

# what only waits takes no room: delayed messages, and those behind one key
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel('late');
	SELECT message_bus.create_subscription('late', 's');
	SELECT count(message_bus.publish('late', to_json(i), delay => '1 hour'))
	FROM generate_series(1, 1000) i;
	SELECT count(message_bus.publish('late', to_json(i), delay => '1 second'))
	FROM generate_series(1001, 1010) i;
	SELECT message_bus.create_channel('hot');
	SELECT message_bus.create_subscription('hot', 's', ordered => true);
	SELECT count(message_bus.publish('hot', to_json(i), key => 'k'))
	FROM generate_series(1, 1000) i;
	SELECT count(message_bus.publish('hot', to_json(i), key => i::text))
	FROM generate_series(1001, 1005) i});
is(claim_all($node, 'hot', batch => 10),
	join(' ', map { "$_:1" } 1, 1001 .. 1005),
	'a thousand messages behind one key hide no others');
is( $node->safe_psql(
		'postgres', q{
		SELECT sum(message_bus.ack(lease))
		FROM (SELECT DISTINCT lease FROM message_bus.leases) l}),
	6,
	'which are acked');
$node->poll_query_until(
	'postgres', q{
	SELECT clock_timestamp() > max(available_at) FROM message_bus.message
	WHERE available_at < clock_timestamp() + interval '1 minute'});
is(claim_all($node, 'late', batch => 16),
	join(' ', map { "$_:1" } 1001 .. 1010),
	'a thousand delayed messages leave room for those that are due');
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.ack(lease)
	FROM (SELECT DISTINCT lease FROM message_bus.leases) l;
	SELECT message_bus.drop_channel('late'), message_bus.drop_channel('hot')});

# an ordered subscription's messages that wait for a retry
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel('keys');
	SELECT message_bus.create_subscription('keys', 's', ordered => true);
	SELECT message_bus.publish('keys', to_json(i), key => i::text)
	FROM generate_series(1, 17) i;
	SELECT message_bus.nack(max(lease), delay => '1 second')
	FROM message_bus.claim('keys', 's', 16)});
is(claim_all($node, 'keys', batch => 16),
	'17:1', 'messages that wait take no room');
$node->safe_psql('postgres',
	'SELECT message_bus.ack(' . lease_of($node, 'keys') . ')');
ok( $node->poll_query_until(
		'postgres',
		q{SELECT max(retry_at) < clock_timestamp() FROM message_bus.failure}),
	'their time comes');
is(claim_all($node, 'keys', batch => 16),
	join(' ', map { "$_:2" } 1 .. 16),
	'and are delivered when their time comes');
$node->safe_psql('postgres', q{SELECT message_bus.drop_channel('keys')});

# nor do those without a time in sight
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

# subscriptions: one that holds nothing is no hindrance
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.ack(lease)
	FROM (SELECT DISTINCT lease FROM message_bus.leases) l;
	SELECT message_bus.drop_subscription('c', 'o');
	SELECT message_bus.create_channel('many');
	SELECT message_bus.create_subscription('many', i::text)
	FROM generate_series(1, 20) i;
	SELECT message_bus.publish('many', '1')});

my ($served, $refused) = (0, 0);

foreach my $i (1 .. 20)
{
	my ($status, $out, $err) = $node->psql('postgres',
		"SELECT id FROM message_bus.claim('many', '$i', "
		  . "lease_for => '1 hour')");

	$served++ if $status == 0;
	$refused++
	  if $err =~ /too many subscriptions are in use.*HINT:.*max_subscriptions/s;
}
is("$served $refused", '16 4', 'claims beyond max_subscriptions are refused');
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

# also one that was moved in the same transaction
$node->safe_psql('postgres', q{SELECT message_bus.drop_channel('many')});
$node->safe_psql('postgres', q{SELECT message_bus.create_channel('one')});
my ($status, $out, $err) = $node->psql(
	'postgres', q{
	SELECT message_bus.create_subscription('one', 'd');
	SELECT count(*) FROM message_bus.claim('one', 'd');
	BEGIN;
	SELECT message_bus.seek('one', 'd', 'latest');
	SELECT message_bus.drop_subscription('one', 'd');
	COMMIT;} x 40,
	on_error_stop => 1);
is($err, '', 'one that was moved and dropped makes room at once');

# leases that cannot be ended: nothing can be inserted where their messages
# are to go; ten of them, and one of another channel
my $letters = $node->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel('letters', ttl => '1 hour');
	SELECT message_bus.create_channel('poison', max_attempts => 1,
		dead_letter => 'letters');
	SELECT message_bus.create_channel('innocent');
	SELECT message_bus.create_subscription(c, 's')
	FROM unnest(ARRAY['poison', 'innocent']) c;
	SELECT message_bus.publish('innocent', '1') > 0;
	SELECT message_bus.publish('letters', '1') >> 24}) =~ s/.*\n//sr;

publish_some($node, 'poison', 10);
$node->safe_psql('postgres',
	"ALTER TABLE message_bus.message_$letters "
	  . "ADD CHECK (channel_id = 0) NOT VALID");
$node->safe_psql('postgres',
	q{SELECT FROM message_bus.claim('poison', 's',
		lease_for => '50 milliseconds');} x 10);
claim_all($node, 'innocent', lease_for => '100 milliseconds');
is( $node->safe_psql(
		'postgres',
		q{SELECT attempt FROM message_bus.claim('innocent', 's',
			lease_for => '1 hour', wait => '30 seconds')}),
	2,
	'leases that cannot be ended hold up no other');
cmp_ok(
	$node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM message_bus.leases WHERE channel = 'poison'}),
	'>=', 1, 'while some of them are still out');

$node->stop;
done_testing();
