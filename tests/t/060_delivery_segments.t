# tests/t/060_delivery_segments.t
#
# Deliveries and segments that go: retention acked gives space back, somebody
# with an old snapshot does not stop consumers, and what is claimed in a
# segment that retires can be acked or is forgotten.

use strict;
use warnings;

use MessageBus::Delivery;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('delivery_segments',
	conf => "message_bus.worker_interval = 100ms\n"
	  . "message_bus.segment_max_rows = 100\n");

# consume claims and acks everything there is; returns how many.
sub consume
{
	my ($channel, $subscription) = @_;
	my $total = 0;

	for (;;)
	{
		my $n = $node->safe_psql(
			'postgres', qq{
			SELECT sum(message_bus.ack(lease)) FROM (SELECT DISTINCT lease
				FROM message_bus.claim('$channel', '$subscription', 70)) l});

		return $total if $n eq '';
		$total += $n;
	}
}

# segments returns how many segments a channel's messages lie in.
sub segments
{
	my ($channel) = @_;

	return $node->safe_psql('postgres',
		"SELECT count(DISTINCT id >> 24) FROM message_bus.message "
		  . "JOIN message_bus.channel USING (channel_id) "
		  . "WHERE name = '$channel'");
}

create_bus($node);
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel('acked', retention => 'acked');
	SELECT message_bus.create_subscription('acked', 's');
	SELECT message_bus.create_subscription('acked', 'slow');
	SELECT message_bus.create_channel('short', ttl => '2 seconds');
	SELECT message_bus.create_subscription('short', 's')});

# retention acked
publish_some($node, 'acked', 1000);
cmp_ok(segments('acked'), '>=', 9, 'a thousand messages fill many segments');
is(consume('acked', 's'), 1000, 'one subscription acks them');
$node->safe_psql('postgres', 'SELECT message_bus.expire()');
cmp_ok(segments('acked'), '>=', 9, 'they stay for the other');
is(consume('acked', 'slow'), 1000, 'which acks them too');
wait_for('the segments to go', sub { segments('acked') <= 1 });
ok(1, 'segments that every subscription has acked go');
publish_some($node, 'acked', 50);
is(consume('acked', 's'), 50, 'and it goes on');
is(consume('acked', 'slow'), 50, 'for both');

# with an old snapshot
my $reader = $node->background_psql('postgres');

$reader->query_safe(
	q{BEGIN ISOLATION LEVEL REPEATABLE READ;
	  SELECT count(*) FROM message_bus.message});
publish_some($node, 'acked', 500);
is(consume('acked', 's'), 500, 'an old snapshot holds up no consumer');
is(consume('acked', 'slow'), 500, 'nor another');
publish_some($node, 'acked', 10);
is(claim_all($node, 'acked', batch => 10),
	join(' ', map { "$_:1" } 1 .. 10), 'nor a claim');
is( $reader->query_safe(
		q{SELECT count(*) > 0 FROM message_bus.message; COMMIT}),
	't', 'and its tables can still be read');
is( $node->safe_psql(
		'postgres', q{
		SELECT message_bus.ack(max(lease)) FROM message_bus.leases}),
	10,
	'what was claimed meanwhile can be acked');
consume('acked', 'slow');
wait_for('the segments to go after the old snapshot',
	sub { segments('acked') <= 1 });
ok(1, 'segments go after the old snapshot has');

# a message that one subscription is to get again keeps its segment, until
# that is moved to a time behind it
publish_some($node, 'acked', 300);
is(consume('acked', 's'), 300, 'one subscription acks more');
my $wanted = $node->safe_psql(
	'postgres', q{
	SELECT id FROM message_bus.claim('acked', 'slow'),
		message_bus.nack(lease, delay => '1 hour')});

is(consume('acked', 'slow'), 299, 'the other all but one');
wait_for('the other segments to go', sub { segments('acked') <= 2 });
$node->safe_psql('postgres', 'SELECT message_bus.expire()');
is( $node->safe_psql(
		'postgres', "SELECT count(*) FROM message_bus.message WHERE id = $wanted"
	),
	1,
	'which stays with its segment');
$node->safe_psql('postgres',
	q{SELECT message_bus.seek('acked', 'slow', clock_timestamp()::text)});
is(claim_all($node, 'acked', subscription => 'slow'),
	'', 'the other is moved to a time behind it');
wait_for(
	'the segment to go after a seek',
	sub {
		return $node->safe_psql('postgres',
			"SELECT count(*) FROM message_bus.message WHERE id = $wanted") ==
		  0;
	});
ok(1, 'and then it goes');

# a message that has died is redriven when its segment is to go, and cannot
# yet because somebody reads
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel('letters', ttl => '1 hour');
	SELECT message_bus.create_channel('dies', retention => 'acked',
		max_attempts => 1, dead_letter => 'letters');
	SELECT message_bus.create_subscription('dies', 's')});
publish_some($node, 'dies', 200);
my $dead = $node->safe_psql(
	'postgres', q{
	SELECT id FROM message_bus.claim('dies', 's'), message_bus.nack(lease)});

$reader->query_safe(
	q{BEGIN ISOLATION LEVEL REPEATABLE READ;
	  SELECT count(*) FROM message_bus.message});
is(consume('dies', 's'), 199, 'all but one that has died are acked');
ok( $node->poll_query_until(
		'postgres',
		"SELECT expires_at < clock_timestamp() FROM message_bus.segment "
		  . "WHERE segment_no = $dead >> 24"),
	'its segment is let go');
is($node->safe_psql('postgres', q{SELECT message_bus.redrive('letters')}),
	1, 'it is redriven');
$reader->query_safe('COMMIT');
wait_for(
	'the segment to go',
	sub {
		return $node->safe_psql('postgres',
			"SELECT count(*) FROM message_bus.message WHERE id = $dead") == 0;
	});
is(claim_all($node, 'dies'), '1:1', 'and delivered when that has gone');
$node->safe_psql('postgres', q{SELECT message_bus.drop_channel('dies')});

# a segment retires with an ack open in it, and under a lease
publish_some($node, 'short', 300);
is(claim_all($node, 'short', batch => 250) =~ tr/ //, 249, 'claimed');
my $lease = lease_of($node, 'short');

$reader->query_safe('BEGIN');
is($reader->query_safe("SELECT message_bus.ack($lease, ARRAY["
		  . "(SELECT min(message_id) FROM message_bus.leases)])"),
	1, 'an ack is open');
my $segment = $node->safe_psql('postgres',
	'SELECT min(message_id) >> 24 FROM message_bus.leases');

sleep 3;
$node->safe_psql('postgres', 'SELECT message_bus.expire()');
is( $node->safe_psql(
		'postgres',
		"SELECT count(*) FROM message_bus.segment WHERE segment_no = $segment"
	),
	1,
	'its segment stays');
is($reader->query_safe('COMMIT'), '', 'it commits');
wait_for('the segments to go', sub { segments('short') == 0 });
my ($status, $out, $err) =
  $node->psql('postgres', "SELECT message_bus.ack($lease)");
ok($status == 0 || $err =~ /is not held|does not hold/,
	'an ack of messages that have gone does no harm');
$node->psql('postgres', "SELECT message_bus.nack($lease)");
publish_some($node, 'short', 5);
is(claim_all($node, 'short'), '1:1 2:1 3:1 4:1 5:1', 'the channel goes on');
$reader->quit;

is( $node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM message_bus.worker_status
		  WHERE last_error IS NOT NULL}),
	0,
	'the worker had no error');

$node->stop;
done_testing();
