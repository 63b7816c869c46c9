# tests/t/056_ordered_retries.t
#
# A message of an ordered subscription that waits for a retry needs no memory:
# many may wait in a small pool.  Its key waits with it, and goes on when it
# is done, or is no more: deleted, purged, expired, gone with its segment.

use strict;
use warnings;

use MessageBus::Delivery;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node(
	'ordered_retries',
	conf => "message_bus.worker_interval = 100ms\n"
	  . "message_bus.segment_max_rows = 1024\n"
	  . "message_bus.max_leases = 64\n"
	  . "message_bus.max_subscriptions = 16\n");

create_bus($node);

# channel makes a channel with an ordered subscription.
sub channel
{
	my ($channel) = @_;

	$node->safe_psql(
		'postgres', qq{
		SELECT message_bus.create_channel('$channel', ttl => '2 hours',
			max_attempts => 20);
		SELECT message_bus.create_subscription('$channel', 's',
			ordered => true)});
}

# publish publishes a number with a key, and returns its id.
sub publish
{
	my ($channel, $number, $key, $more) = @_;

	$more ||= '';
	return $node->safe_psql('postgres',
		"SELECT message_bus.publish('$channel', '$number', key => '$key' $more)"
	);
}

# fail_all claims once, gives all back with a delay, and returns what it was.
sub fail_all
{
	my ($channel, $delay, $batch) = @_;

	$batch ||= 10;
	return $node->safe_psql(
		'postgres', qq{
		WITH c AS MATERIALIZED (
			SELECT * FROM message_bus.claim('$channel', 's', $batch)),
		n AS MATERIALIZED (
			SELECT message_bus.nack(max(lease), delay => '$delay') FROM c
			HAVING count(*) > 0)
		SELECT string_agg(payload || ':' || attempt, ' '
			ORDER BY (payload #>> '{}')::int)
		FROM c WHERE (SELECT count(*) FROM n) >= 0});
}

# take claims and acks what there is, and returns it.
sub take
{
	my ($channel) = @_;
	my $got = claim_all($node, $channel, batch => 10);

	$node->safe_psql(
		'postgres', qq{
		SELECT message_bus.ack(lease)
		FROM (SELECT DISTINCT lease FROM message_bus.leases
			WHERE channel = '$channel') l});
	return $got;
}

sub status
{
	my ($channel) = @_;

	return $node->safe_psql(
		'postgres', qq{
		SELECT lag_messages, in_flight, ready, retrying
		FROM message_bus.subscriptions WHERE channel = '$channel'});
}

# many keys, each with a message that waits and one behind it
channel('many');
$node->safe_psql(
	'postgres', q{
	SELECT count(message_bus.publish('many', to_json(i), key => i::text))
	FROM generate_series(1, 200) i;
	SELECT count(message_bus.publish('many', to_json(i), key => (i - 200)::text))
	FROM generate_series(201, 400) i});
my $failed = 0;

while ((my $got = fail_all('many', '1 hour', 20)) ne '')
{
	$failed += scalar(split ' ', $got);
	last if $failed > 200;
}
is($failed, 200, 'one message of each key fails, more than the pool holds');
is( $node->safe_psql(
		'postgres', q{
		SELECT count(*) FROM message_bus.pools
		WHERE pool = 'messages' AND subscription = 's'}),
	0,
	'those that wait hold nothing');
is(status('many'), '400|0|0|200', 'the view counts them, and those behind');
publish('many', 401, 'new');
publish('many', 402, 7);
is(take('many'), '401:1', 'a key that waits waits, others are delivered');

# they are still in order over a crash
my $session = $node->background_psql('postgres');

session_kill($node, $session, session_pid($session));
publish('many', 403, 'new');
publish('many', 404, 8);
wait_for('the subscription', sub { status('many') ne '|||' });
is(take('many'), '403:1', 'nor after a crash');
is(take('many'), '', 'also not when asked again');
$node->safe_psql('postgres', q{SELECT message_bus.drop_channel('many')});

# in order after the retry
channel('order');
publish('order', $_, 'k') foreach 1 .. 3;
is(fail_all('order', '1 second'), '1:1', 'the first of a key fails');
is(take('order'), '', 'the others wait for it');
wait_for('the retry', sub { (my $got = take('order')) =~ /^1:2$/ });
is(take('order'), '2:1', 'then comes the second');
is(take('order'), '3:1', 'and the third');
is(status('order'), '0|0|0|0', 'nothing is left');

# one of a lower id commits when another of its key has failed
channel('late');
my $late = $node->background_psql('postgres');

$late->query_safe(
	q{BEGIN; SELECT message_bus.publish('late', '1', key => 'k')});
publish('late', 2, 'k');
is(fail_all('late', '1 second'), '2:1', 'one of a higher id fails');
$late->query_safe('COMMIT');
$late->quit;
is(take('late'), '', 'one of a lower id that commits later waits for it');
wait_for('the retry', sub { take('late') eq '2:2' });
is(take('late'), '1:1', 'and comes then');

# one that waits is deleted, or purged
channel('gone');
my $deleted = publish('gone', 1, 'k');
publish('gone', 2, 'k');
my $purged = publish('gone', 3, 'l');
publish('gone', 4, 'l');
is(fail_all('gone', '1 second'), '1:1 3:1', 'two keys fail');
is(take('gone'), '', 'those behind wait');
$node->safe_psql('postgres',
	"SELECT message_bus.record_event($deleted, 'deleted', now())");
publish('gone', 5, 'k');
my @got;
wait_for(
	'the key of a deleted message',
	sub {
		push @got, split ' ', take('gone');
		return scalar(@got) >= 4;
	});
is(join(' ', grep { /^[25]/ } @got),
	'2:1 5:1', 'the key of a deleted message goes on, in order');
is(join(' ', grep { /^[34]/ } @got), '3:2 4:1', 'as does the other');

# one would expire before its time comes: it is dead, and the key goes on
channel('brief');
publish('brief', 1, 'k', ", ttl => '10 minutes'");
publish('brief', 2, 'k');
is(fail_all('brief', '1 hour'), '1:1', 'one that would expire fails');
is(take('brief'), '2:1', 'the one behind comes at once');

# one expires after its time has come, before anybody looks
channel('late look');
my $unseen = publish('late look', 1, 'k', ", ttl => '8 seconds'");
publish('late look', 2, 'k');
is(fail_all('late look', '7 seconds'), '1:1', 'one fails');
is(take('late look'), '', 'the one behind waits');
wait_for(
	'the expiry',
	sub {
		return $node->safe_psql('postgres',
			"SELECT count(*) FROM message_bus.messages WHERE id = $unseen") ==
		  0;
	});
is(take('late look'), '2:1', 'and comes when it has expired');

# and its segment goes before anybody looks
channel('segment');
$node->safe_psql('postgres',
	q{SELECT message_bus.alter_channel('segment', ttl => '12 seconds')});
my $first = publish('segment', 1, 'k');
publish('segment', 2, 'k', ", ttl => '12 seconds'");
is(fail_all('segment', '11 seconds'), '1:1', 'one of a short series fails');
is(take('segment'), '', 'the one behind waits');
$node->safe_psql('postgres',
	q{SELECT message_bus.alter_channel('segment', ttl => '2 hours')});
publish('segment', 3, 'k');
publish('segment', 4, 'm');
is(take('segment'), '4:1', 'also one of another series');
wait_for(
	'the segment to go',
	sub {
		$node->safe_psql('postgres', 'SELECT message_bus.expire()');
		return $node->safe_psql('postgres',
			"SELECT to_regclass('message_bus.message_' || ($first >> 24)) IS NULL"
		) eq 't';
	});
is(take('segment'), '3:1', 'which comes when the segment has gone');

$node->stop;
done_testing();
