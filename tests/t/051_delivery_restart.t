# tests/t/051_delivery_restart.t
#
# Deliveries over restarts: what was acked stays done, every lease of before
# is void, a lease that a checkpoint knew counts as an attempt, and lease
# numbers only grow, also when an epoch's are used up.

use strict;
use warnings;

use MessageBus::Delivery;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('delivery_restart',
	conf => "message_bus.worker_interval = 100ms\n");

create_bus($node);
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel('c', max_attempts => 3);
	SELECT message_bus.create_subscription('c', 's');
	SELECT message_bus.create_subscription('c', 'other')});

# clean and immediate
my $last = 0;

foreach my $mode ('fast', 'immediate')
{
	my $lease;

	publish_some($node, 'c', 4);
	is(claim_all($node, 'c', batch => 2), '1:1 2:1', "$mode: claim");
	$lease = lease_of($node, 'c');
	cmp_ok($lease, '>', $last, "$mode: leases grow");
	is($node->safe_psql('postgres', "SELECT message_bus.ack($lease)"),
		2, "$mode: ack");
	claim_all($node, 'c', batch => 1);
	$last = lease_of($node, 'c');
	$node->stop($mode);
	$node->start;
	bus_ready($node);
	is( $node->safe_psql('postgres',
			'SELECT count(*) FROM message_bus.leases'),
		0,
		"$mode: nothing is out after the restart");
	refused($node, $last, "$mode: a lease of before");
	is($node->safe_psql('postgres', "SELECT message_bus.ack($lease)"),
		2, "$mode: an ack of before, repeated");
	like(claim_all($node, 'c'),
		qr/^3:\d 4:1$/, "$mode: what was not acked comes again");
	$lease = lease_of($node, 'c');
	cmp_ok($lease >> 17, '>', $last >> 17, "$mode: a new epoch");
	$last = $lease;
	$node->safe_psql('postgres', "SELECT message_bus.ack($lease)");
}
is(done_count($node, 'c'), 8, 'each message is done once');

# attempts that a checkpoint has seen
publish_some($node, 'c', 1);
foreach my $attempt (1 .. 3)
{
	is(claim_all($node, 'c'), "1:$attempt", "attempt $attempt");
	checkpoint_has($node, 'c', lease_of($node, 'c'));
	$node->stop('immediate');
	$node->start;
	bus_ready($node);
}
is(claim_all($node, 'c'), '', 'there is no fourth attempt');
is( $node->safe_psql(
		'postgres', q{
		SELECT string_agg(kind || attempt, ' ' ORDER BY lease)
		FROM message_bus.failure
		WHERE message_id = (SELECT max(message_id) FROM message_bus.failure)}),
	'crash1 crash2 crash3',
	'each crash is a failure');
is( $node->safe_psql('postgres',
		q{SELECT count(*) FROM message_bus.dead_letters}),
	1,
	'and the message is dead');

# what a checkpoint has passed over and was redriven, and a key that waits
# while another is free
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel('dead', max_attempts => 1);
	SELECT message_bus.create_subscription('dead', 's', ordered => true);
	SELECT message_bus.create_channel('keys');
	SELECT message_bus.create_subscription('keys', 's', ordered => true);
	SELECT message_bus.publish(c, to_json(i), key => i::text)
	FROM unnest(ARRAY['dead', 'keys']) c, generate_series(1, 2) i;
	SELECT message_bus.nack(lease) FROM message_bus.claim('dead', 's');
	SELECT message_bus.ack(lease) FROM message_bus.claim('dead', 's');
	SELECT message_bus.nack(lease, delay => '1 hour')
	FROM message_bus.claim('keys', 's');
	SELECT message_bus.create_channel('next', max_attempts => 2,
		backoff => '0', backoff_max => '0');
	SELECT message_bus.create_subscription('next', 's', ordered => true);
	SELECT message_bus.publish('next', to_json(i), key => 'k')
	FROM generate_series(1, 2) i});
$node->safe_psql('postgres', q{
	SELECT message_bus.nack(lease) FROM message_bus.claim('next', 's')})
  foreach 1 .. 2;
ok( $node->poll_query_until(
		'postgres', q{
		SELECT p.cursor >= (SELECT max(id) FROM message_bus.peek('dead'))
		FROM message_bus.checkpoint p
		JOIN message_bus.subscription USING (subscription_id)
		JOIN message_bus.channel c USING (channel_id)
		WHERE c.name = 'dead'}),
	'a checkpoint behind the dead message');
$node->safe_psql('postgres', 'CHECKPOINT');
is($node->safe_psql('postgres', q{SELECT message_bus.redrive('dead')}),
	1, 'it is redriven');
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.nack(lease, delay => '10 seconds')
	FROM message_bus.claim('next', 's');
	SELECT message_bus.redrive('next')});
$node->stop('immediate');
$node->start;
bus_ready($node);
is(claim_all($node, 'dead'), '1:1', 'a redriven message comes after a crash');
is( $node->safe_psql(
		'postgres',
		q{CALL message_bus.wait(ARRAY['keys'], ARRAY['s'], '5 seconds')}),
	'{keys}',
	'a key that waits for a retry does not hide another');
is(claim_all($node, 'keys'), '2:1', 'which is delivered');

# of one key: the redriven message, and the one that waits behind it
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.ack(lease) FROM message_bus.claim('next', 's')});
$node->safe_psql('postgres',
	q{CALL message_bus.wait(ARRAY['next'], ARRAY['s'], '0.2 seconds')});
is( $node->safe_psql('postgres',
		q{SELECT payload || ':' || attempt
		  FROM message_bus.claim('next', 's', wait => '60 seconds')}),
	'2:2',
	'who looks for messages forgets none that waits for its retry');

# an open seek, of a subscription whose checkpoint is due
my $sought = $node->background_psql('postgres');
my $lease;

publish_some($node, 'c', 3);
claim_all($node, 'c', batch => 1);
$lease = lease_of($node, 'c');
checkpoint_has($node, 'c', $lease);
claim_all($node, 'c', batch => 1, subscription => 'other');
checkpoint_has($node, 'c', lease_of($node, 'c'));
$sought->query_safe(q{BEGIN; SELECT message_bus.seek('c', 's', 'latest')});
$node->safe_psql('postgres', "SELECT message_bus.ack($lease)");
claim_all($node, 'c', batch => 1, subscription => 'other');
checkpoint_has($node, 'c', lease_of($node, 'c'));
ok(1, 'an open seek holds up no checkpoint of others');
$sought->query_safe('ROLLBACK');
$sought->quit;

# what was acked here and there is left out, whatever the batch: claims look
# up many ids of before the start at a time
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel('many');
	SELECT message_bus.create_subscription('many', 's');
	SELECT message_bus.publish('many', to_json(i))
	FROM generate_series(0, 4999) i;
	WITH claimed AS MATERIALIZED (
		SELECT * FROM message_bus.claim('many', 's', batch => 5000))
	SELECT message_bus.ack(max(lease), array_agg(id)) FROM claimed
	WHERE payload::text::int % 7 <> 3
		AND payload::text::int NOT BETWEEN 1000 AND 3500});
$node->stop('immediate');
$node->start;
bus_ready($node);
$node->safe_psql(
	'postgres', q{
	CREATE TABLE got (n serial, payload int);
	DO $$
	DECLARE
		batches int[] := ARRAY[1, 2, 16, 17, 100, 1000];
		number int;
	BEGIN
		FOR turn IN 0 .. 1000 LOOP
			INSERT INTO got (payload)
			SELECT payload::text::int
			FROM message_bus.claim('many', 's',
				batch => batches[1 + turn % 6]);
			GET DIAGNOSTICS number = ROW_COUNT;
			EXIT WHEN number = 0;
			COMMIT;
		END LOOP;
	END
	$$});
is( $node->safe_psql(
		'postgres', q{
		SELECT array_agg(payload ORDER BY n) = (
			SELECT array_agg(i ORDER BY i) FROM generate_series(0, 4999) i
			WHERE i % 7 = 3 OR i BETWEEN 1000 AND 3500)
		FROM got}),
	't',
	'what was not acked comes once, in order, in batches of any size');

# a retry that fills the first claim, of a subscription without a checkpoint
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel('retried');
	SELECT message_bus.create_subscription('retried', 's')});
publish_some($node, 'retried', 3);
$node->safe_psql('postgres',
	q{SELECT message_bus.nack(lease, delay => '0')
	  FROM message_bus.claim('retried', 's')});

# the next one comes seconds after the first
ok( $node->poll_query_until(
		'postgres', q{
		WITH gone AS (DELETE FROM message_bus.checkpoint p
			USING message_bus.subscription JOIN message_bus.channel c
				USING (channel_id)
			WHERE p.subscription_id = subscription.subscription_id
			AND c.name = 'retried' RETURNING 1)
		SELECT count(*) = 1 FROM gone}),
	'there is no checkpoint any more');
$node->stop('immediate');
$node->start;
bus_ready($node);
is( join(' ', map { claim_all($node, 'retried', batch => 1) } 1 .. 3),
	'1:2 2:1 3:1',
	'a retry that fills the first claim hides nothing');

# lease numbers used up
$node->append_conf('postgresql.conf', 'message_bus.leases_per_epoch = 16');
$node->restart;
bus_ready($node);
$node->safe_psql('postgres',
	q{SELECT message_bus.seek('c', 's', 'latest')});
publish_some($node, 'c', 200);

my (%epochs, $claimed);
my $previous = 0;

wait_for(
	'two hundred claims of one message each',
	sub {
		my ($status, $out, $err) = $node->psql(
			'postgres',
			q{SELECT lease FROM message_bus.claim('c', 's', lease_for => '1 hour')}
		);

		die "unexpected: $err" if $status != 0 && $err !~ /lease numbers/;
		return 0 if $status != 0;
		die "nothing to claim after $claimed\n" if $out eq '';
		die "lease $out after $previous\n" if $out <= $previous;
		$previous = $out;
		$epochs{ $out >> 17 }++;
		return ++$claimed == 200;
	});
cmp_ok(scalar keys %epochs,
	'>=', 12, 'claims go on when an epoch is used up');
is( (sort { $b <=> $a } values %epochs)[0] <= 16,
	1, 'no epoch has more leases than it may');
is( $node->safe_psql(
		'postgres', q{
		SELECT sum(message_bus.ack(lease)) FROM
			(SELECT DISTINCT lease FROM message_bus.leases) l}),
	200,
	'leases of earlier epochs are still held');

$node->stop;
done_testing();
