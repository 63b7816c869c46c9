# tests/t/062_expired.t
#
# What expires before a subscription is done with it is counted, over restarts
# and drops of segments; where dead_letter_expired is set it becomes dead
# letters; and a lease that outlasts its message's segment loses nothing.

use strict;
use warnings;

use MessageBus::Delivery;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node =
  bus_node('expired', conf => "message_bus.worker_interval = 100ms\n");

# sql runs a command and returns what it says.
sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# expired returns the count of each subscription of a channel, with a + where it
# is a lower bound.
sub expired
{
	my ($channel) = @_;

	return sql(
		qq{SELECT string_agg(subscription || ' ' || expired ||
			CASE WHEN expired_at_least THEN '+' ELSE '' END, ', '
			ORDER BY subscription)
		FROM message_bus.subscriptions WHERE channel = '$channel'});
}

# all_expired waits until every message of a channel has expired.
sub all_expired
{
	my ($channel) = @_;

	wait_for(
		"messages of $channel to expire",
		sub {
			return sql(
				qq{SELECT count(*) FROM message_bus.messages
					WHERE channel = '$channel'}) == 0;
		});
}

# restart stops the node in a mode and starts it again.
sub restart
{
	my ($mode) = @_;

	$node->stop($mode);
	$node->start;
	bus_ready($node);
	ok( $node->poll_query_until(
			'postgres', q{
			SELECT count(*) = 0 FROM message_bus.subscriptions
			WHERE expired IS NULL}),
		"$mode: subscriptions are loaded");
}

create_bus($node);
sql(q{
	SELECT message_bus.create_channel('c', ttl => '3 seconds');
	SELECT message_bus.create_subscription('c', s, ordered => s = 'keys')
	FROM unnest(ARRAY['all', 'deleted', 'keys', 'never', 'some']) s;
	SELECT message_bus.publish('c', to_json(i), key => (i % 2)::text,
		transaction_id => i::text) FROM generate_series(1, 5) i;
	SELECT message_bus.ack(max(lease)) FROM message_bus.claim('c', 'all', 5);
	SELECT message_bus.ack(max(lease)) FROM message_bus.claim('c', 'some', 2);
	SELECT message_bus.ack(max(lease)) FROM message_bus.claim('c', 'keys', 5)});
is(expired('c'), 'all 0, deleted 0, keys 0, never 0, some 0',
	'nothing has expired yet');
sql(q{DELETE FROM message_bus.message_bus WHERE transaction_id = '5'});
all_expired('c');
my $counts = 'all 0, deleted 4, keys 2, never 4, some 2';
is(expired('c'), $counts, 'what was not acknowledged is counted');
is( sql(q{SELECT value FROM message_bus.metrics
		WHERE metric = 'messages_expired_total'}),
	12,
	'also in the metrics');
is(claim_all($node, 'c', subscription => $_), '', "$_ gets nothing any more")
  foreach 'some', 'keys';
is(expired('c'), $counts, 'it is counted once');
sql(q{SELECT message_bus.create_subscription('c', 'young')});
like(expired('c'), qr/^\Q$counts\E, young 0$/,
	'what had expired before counts for no new one');
sql(q{SELECT message_bus.seek('c', 'all', 'earliest')});
like(expired('c'), qr/^all 0,/, 'nor for one that is moved back to it');
sql(q{SELECT message_bus.drop_subscription('c', 'young')});

# over restarts
foreach my $mode ('fast', 'immediate')
{
	restart($mode);
	is(expired('c'), $counts, "$mode: the counts are what they were");
}

# claimed is not lost; a retry that waits is, when it expires
sql(q{
	SELECT message_bus.create_channel('r', ttl => '3 seconds');
	SELECT message_bus.create_subscription('r', s)
	FROM unnest(ARRAY['late', 'out', 'ready']) s;
	SELECT message_bus.publish('r', '1'), message_bus.publish('r', '2',
		delay => '2 seconds');
	SELECT message_bus.nack(max(lease), delay => '1 second')
	FROM message_bus.claim('r', 'late')});
$node->safe_psql('postgres',
	q{BEGIN; SELECT message_bus.claim('r', 'ready'); ROLLBACK});
is(claim_all($node, 'r', subscription => 'out'), '1:1', 'one is claimed');
all_expired('r');
is(expired('r'), 'late 2, out 1, ready 2',
	'retries, delayed ones and those given back are counted');
is( sql(q{SELECT message_bus.ack(max(lease)) FROM message_bus.leases
		WHERE channel = 'r'}),
	1,
	'what was out is acknowledged');
is(expired('r'), 'late 2, out 1, ready 2', 'and was not lost');

# segments go
my $log = 0;

sql(q{SELECT message_bus.expire()});
is( sql(q{SELECT count(*) FROM message_bus.message
		WHERE expires_at < message_bus.clock()}),
	0,
	'the segments have gone');
is(expired('c'), $counts, 'the counts stay');
is(expired('r'), 'late 2, out 1, ready 2', 'all of them');
my $lines = slurp_file($node->logfile, $log);
like(
	$lines,
	qr/drops segment \d+ with \d+ messages that have expired before a subscription was done with them/,
	'the log tells of a segment with such');
like($lines, qr/4 of channel "c" for subscription "never"/, 'and of whom');
unlike($lines, qr/subscription "all"/, 'not of those who had all');
restart('immediate');
is(expired('c'), $counts, 'the counts stay over a restart, too');
is( sql(q{SELECT value FROM message_bus.metrics
		WHERE metric = 'messages_expired_total'}),
	17,
	'as that of the metrics');
$log = -s $node->logfile;
sql(q{SELECT message_bus.publish('c', '1', ttl => '10 milliseconds');
	SELECT message_bus.drop_channel('c'); SELECT message_bus.drop_channel('r')});
sql(q{SELECT message_bus.expire()});
unlike(slurp_file($node->logfile, $log),
	qr/have expired before/, 'nobody misses what was dropped');

# what is told is a lower bound where there is much to read
sql(q{
	SELECT message_bus.create_channel('many', ttl => '1 second');
	SELECT message_bus.create_subscription('many', 's');
	SELECT count(*) FROM message_bus.publish_batch_bytes('many',
		(SELECT array_agg('x'::bytea) FROM generate_series(1, 12000)))});
all_expired('many');
is(expired('many'), 's 500+', 'a lower bound is marked');
is( sql(q{SELECT expired, expired_at_least
		FROM message_bus.subscription_expired('many', 's')}),
	'12000|f',
	'the exact number can be asked for');
sql(q{SELECT message_bus.expire()});
is(expired('many'), 's 12000', 'and is known when the segment has gone');
sql(q{CREATE ROLE stranger; GRANT USAGE ON SCHEMA message_bus TO stranger});
is( sql(q{SET ROLE stranger; SELECT count(*) FROM message_bus.subscriptions}),
	0, 'a stranger sees none');
is( sql(q{SET ROLE stranger; SELECT subscription_expired IS NULL
		FROM message_bus.subscription_expired('many', 's')}),
	't',
	'by no way');
sql('GRANT pg_monitor TO stranger');
is( sql(q{SET ROLE stranger; SELECT expired FROM message_bus.subscriptions
		WHERE channel = 'many'}),
	12000,
	'who may monitor sees the number');
is( sql(q{SET ROLE stranger; SELECT value FROM message_bus.metrics
		WHERE metric = 'messages_expired_total'}),
	12000,
	'who may monitor sees the sum');

# dead_letter_expired
sql(q{
	SELECT message_bus.create_channel('letters', ttl => '1 hour');
	SELECT message_bus.create_channel('kept', ttl => '4 seconds',
		dead_letter => 'letters', dead_letter_expired => true);
	SELECT message_bus.create_subscription('kept', s, ordered => s = 'keys')
	FROM unnest(ARRAY['keys', 's']) s;
	SELECT message_bus.publish('kept', to_json(i), key => 'k')
	FROM generate_series(1, 4) i;
	SELECT message_bus.ack(max(lease)) FROM message_bus.claim('kept', 's', 1);
	SELECT message_bus.nack(max(lease), delay => '3 seconds')
	FROM message_bus.claim('kept', 's', 1)});
is(claim_all($node, 'kept', batch => 1), '3:1', 'one is claimed');

my $lease;

# letters tells of dead letters.
sub letters
{
	return sql(
		q{SELECT string_agg(concat_ws(' ', payload,
			headers #>> '{dead_letter,subscription}',
			headers #>> '{dead_letter,kind}',
			headers #>> '{dead_letter,reason}',
			headers #>> '{dead_letter,attempts}'), ', '
			ORDER BY headers #>> '{dead_letter,subscription}', payload::text)
		FROM message_bus.peek('letters')});
}

wait_for('dead letters', sub { letters() =~ /keys.*s expired/ });
is( letters(),
	'1 keys expired expired 0, 2 keys expired expired 0, '
	  . '3 keys expired expired 0, 4 keys expired expired 0, '
	  . '2 s expired expired 1, 4 s expired expired 0',
	'what was not claimed becomes dead letters');
is( sql(q{SELECT bool_and(created_at <
		(headers #>> '{dead_letter,created_at}')::timestamptz + '4 seconds')
		FROM message_bus.peek('letters')}),
	't',
	'before it expires');
is( sql(q{SELECT string_agg(attempts || kind || reason, ' ' ORDER BY attempts DESC)
		FROM message_bus.dead_letters WHERE subscription = 's'}),
	'1expiredexpired 0expiredexpired',
	'and is shown');
is(claim_all($node, 'kept', subscription => $_), '', "$_ gets none of it")
  foreach 'keys', 's';
is( sql(q{SELECT message_bus.nack(max(lease), delay => '0')
		FROM message_bus.leases WHERE channel = 'kept'}),
	1,
	'what is out can be given back');
all_expired('kept');
# what was given back may have expired before it could be moved
like(expired('kept'), qr/^keys 0, s [01]$/, 'nothing else has expired untold');
sql(q{SELECT message_bus.publish('kept', '5', key => 'k')});
is(claim_all($node, 'kept', subscription => 'keys'), '5:1', 'it goes on');
is(sql(q{SELECT message_bus.redrive('letters') > 0}),
	't', 'dead letters are redriven');
sql(q{SELECT message_bus.alter_channel('kept', dead_letter_expired => false)});

# where dead letters may not go nothing is moved: it can be claimed until it
# expires, is counted then, and a lease on it goes on
sql(q{
	CREATE ROLE poor;
	SELECT message_bus.create_channel('rich letters', ttl => '1 hour');
	SELECT message_bus.create_channel('lost letters', ttl => '1 hour');
	SELECT message_bus.create_channel('poor', ttl => '3 seconds',
		dead_letter => 'rich letters', dead_letter_expired => true);
	SELECT message_bus.create_channel('bereft', ttl => '3 seconds',
		dead_letter => 'lost letters', dead_letter_expired => true);
	SELECT message_bus.create_subscription(c, 's')
	FROM unnest(ARRAY['poor', 'bereft']) c;
	SELECT message_bus.alter_channel('poor', owner => 'poor');
	SELECT message_bus.drop_channel('lost letters');
	SELECT message_bus.create_channel('lost letters')});
publish_some($node, $_, 3) foreach 'poor', 'bereft';
is(claim_all($node, 'poor', batch => 1), '1:1', 'one of them is out');
$lease = lease_of($node, 'poor');
all_expired($_) foreach 'poor', 'bereft';
sql(q{SELECT message_bus.expire()});
is(expired('poor'), 's 2', 'what may not go to another channel has expired');
is(expired('bereft'), 's 3', 'as what would go to one that was dropped');
is( sql(q{SELECT count(*) FROM message_bus.dead_letters
		WHERE channel IN ('poor', 'bereft')}),
	0,
	'and is no dead letter');
is( sql(q{SELECT count(*) FROM message_bus.peek('rich letters')})
	  + sql(q{SELECT count(*) FROM message_bus.peek('lost letters')}),
	0,
	'in no channel');
is(sql(qq{SELECT message_bus.ack($lease)}), 1, 'what is out can be acked');
sql(q{SELECT message_bus.grant_channel('rich letters', 'poor', 'publish')});
publish_some($node, 'poor', 3);
# and what had expired before, if its segment is still there
wait_for(
	'dead letters when the right is there',
	sub {
		return sql(q{SELECT count(*) FROM message_bus.peek('rich letters')})
		  >= 3;
	});
ok(1, 'with the right they are moved');

# the server was down when they expired
sql(q{
	SELECT message_bus.create_channel('down letters', ttl => '1 hour');
	SELECT message_bus.create_channel('down', ttl => '2 seconds',
		dead_letter => 'down letters');
	SELECT message_bus.alter_channel('down', dead_letter_expired => true);
	SELECT message_bus.create_subscription('down', 's');
	SELECT message_bus.publish('down', to_json(i)) FROM generate_series(1, 3) i;
	CHECKPOINT});
$node->stop('immediate');
sleep 3;
$node->start;
bus_ready($node);
wait_for(
	'dead letters of the time when the server was down',
	sub {
		return sql(q{SELECT count(*) FROM message_bus.peek('down letters')})
		  == 3;
	});
ok(1, 'what expired while the server was down becomes dead letters, too');
is(expired('down'), 's 0', 'and is not missed');

# a lease that outlasts its message, and its segment
sql(q{
	SELECT message_bus.create_channel('out letters', ttl => '1 hour');
	SELECT message_bus.create_channel('out', ttl => '1 second',
		dead_letter => 'out letters');
	SELECT message_bus.create_subscription('out', 's')});
publish_some($node, 'out', 2);
is(claim_all($node, 'out'), '1:1 2:1', 'two are claimed for an hour');
$lease = lease_of($node, 'out');
all_expired('out');
is(sql(qq{SELECT message_bus.ack($lease, ARRAY[min(message_id)])
		FROM message_bus.leases WHERE lease = $lease}),
	1, 'one can be acknowledged when it has expired');
sql(q{SELECT message_bus.expire()});
is( sql(q{SELECT string_agg(concat_ws(' ', payload,
			headers #>> '{dead_letter,kind}',
			headers #>> '{dead_letter,reason}'), ', ')
		FROM message_bus.peek('out letters')}),
	'2 expired no retry: the message would have expired by then',
	'the other is a dead letter before its segment goes');
refused($node, $lease, 'and cannot be acknowledged');
is(expired('out'), 's 0', 'nothing is lost');

# a delivery that a crash has cut off, of a message that has expired since
sql(q{
	SELECT message_bus.create_channel('crash letters', ttl => '1 hour');
	SELECT message_bus.create_channel('crash', ttl => '15 seconds',
		dead_letter => 'crash letters');
	SELECT message_bus.create_subscription('crash', 's')});
publish_some($node, 'crash', 1);
is(claim_all($node, 'crash'), '1:1', 'one is claimed');
checkpoint_has($node, 'crash', lease_of($node, 'crash'));
my $expires = sql(q{SELECT extract(epoch FROM max(expires_at))
	FROM message_bus.messages WHERE channel = 'crash'});

$node->stop('immediate');
sleep 1 while time <= $expires;
$node->start;
bus_ready($node);
wait_for(
	'a dead letter of a crash',
	sub {
		return sql(q{SELECT count(*) FROM message_bus.peek('crash letters')})
		  == 1;
	});
is( sql(q{SELECT headers #>> '{dead_letter,kind}' || ': ' ||
		(headers #>> '{dead_letter,reason}')
		FROM message_bus.peek('crash letters')}),
	'crash: no retry: the message would have expired by then',
	'what a crash has cut off is a dead letter');

done_testing();
