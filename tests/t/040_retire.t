# tests/t/040_retire.t
#
# Segments whose messages have expired are dropped, while readers hold the
# parent table, while a publish in them is unfinished, and while others read
# and write without a pause.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = bus_node('retire',
	conf => "message_bus.worker_interval = 100ms\n"
	  . "message_bus.segment_max_rows = 100\n"
	  . "log_lock_waits = on\ndeadlock_timeout = 500ms\n");

# segments returns how many segments there are.
sub segments
{
	return $node->safe_psql('postgres',
		'SELECT count(*) FROM message_bus.segment');
}

# stored returns how many messages of a channel take up space.
sub stored
{
	my ($channel) = @_;

	return $node->safe_psql('postgres',
		"SELECT count(*) FROM message_bus.message JOIN message_bus.channel "
		  . "USING (channel_id) WHERE name = '$channel'");
}

# publish_short fills a few segments with messages that expire soon.
sub publish_short
{
	my ($count) = @_;

	$node->safe_psql('postgres',
		"SELECT count(message_bus.publish('short', to_json(repeat('x', 2000)))) "
		  . "FROM generate_series(1, $count)");
}

create_bus($node);
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel('short', ttl => '1 second');
	SELECT message_bus.create_channel('long')});

# nobody in the way
publish_short(1000);
cmp_ok(segments(), '>=', 9, 'a thousand messages fill many segments');
wait_for('expired segments to be dropped by themselves',
	sub { stored('short') == 0 });
cmp_ok(segments(), '<=', 3, 'their segments are gone');

# a reader holds the parent: readers and writers go on, and so does the
# retiring once it has gone
my $reader = $node->background_psql('postgres');

$reader->query_safe(
	q{BEGIN; LOCK TABLE message_bus.message IN ACCESS SHARE MODE;
	  SELECT count(*) FROM message_bus.message});
publish_short(500);

my $slowest = 0;
my $end = time + 4;

while (time < $end)
{
	my $start = time;

	$node->safe_psql(
		'postgres', q{
		SELECT count(*) FROM message_bus.message;
		SELECT message_bus.publish('long', '1');
		SELECT count(*) FROM message_bus.peek('long')});
	$slowest = time - $start if time - $start > $slowest;
}
cmp_ok($slowest, '<', 2, 'nobody waits for the retiring of a segment');
note("slowest: $slowest s");
$reader->query_safe('SELECT count(*) FROM message_bus.message');
$reader->query_safe('COMMIT');
ok(1, 'the reader that held the parent goes on reading');
wait_for('the segments to be dropped after it',
	sub { stored('short') == 0 });

# an unfinished publish keeps its segment
$reader->query_safe(
	q{BEGIN; SELECT message_bus.publish('short', '"unfinished"',
	  transaction_id => 'unfinished')});
publish_short(300);
sleep 2;
$node->safe_psql('postgres', 'SELECT message_bus.expire()');
is( $reader->query_safe(
		q{SELECT count(*) FROM message_bus.message
		  WHERE transaction_id = 'unfinished'}),
	1,
	'a segment with an unfinished publish stays');
$reader->query_safe('COMMIT');
wait_for('it to be dropped after the commit',
	sub { stored('short') == 0 });

# expire() waits for what it asked for
publish_short(300);
sleep 1.2;
$node->safe_psql('postgres', 'SELECT message_bus.expire()');
is(stored('short'), 0, 'expire() waits until the segments are dropped');
cmp_ok(stored('long'), '>', 0, 'what has not expired is still there');
$reader->quit;

# the worker met no errors in all this
is( $node->safe_psql(
		'postgres',
		q{SELECT count(*) FROM message_bus.worker_status
		  WHERE last_error IS NOT NULL}),
	0,
	'the worker had no error');

$node->stop;
done_testing();
