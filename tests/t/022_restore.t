# tests/t/022_restore.t
#
# pg_dump and pg_restore, into a cluster whose worker runs already: channels,
# grants and messages come back, and numbering goes on above them.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $old = bus_node('old');
my $new = bus_node('new', databases => [ 'restored', 'template' ]);
my $dump = $old->basedir . '/dump';
my $summary = q{
	SELECT count(*), sum(size), md5(string_agg(concat_ws(' ', id, channel,
		transaction_id, sha256, expires_at, headers, publisher, content_type,
		available_at),
		E'\n' ORDER BY id))
	FROM message_bus.messages WHERE channel <> 'default'};

create_bus($old);
foreach my $node ($old, $new)
{
	$node->safe_psql('postgres',
		'CREATE ROLE reader; CREATE ROLE writer; CREATE ROLE other');
}
$old->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel('a', ttl => '2 hours');
	SELECT message_bus.create_channel('b c', max_payload => 100000);
	SELECT message_bus.grant_channel('a', 'reader', 'consume');
	SELECT message_bus.grant_channel('a', 'writer', 'publish');
	SELECT message_bus.publish('a', to_json(repeat('x', i)),
		headers => jsonb_build_object('n', i), transaction_id => 't' || i)
	FROM generate_series(1, 500) i;
	SELECT message_bus.publish_bytes('b c', decode(repeat('00ff', i), 'hex'))
	FROM generate_series(1, 500) i});
# messages in more than one segment, and leases as of a server that has been
# started often
$old->safe_psql('postgres',
	'UPDATE message_bus.server_state SET epoch = epoch + 100');
$old->restart;
bus_ready($old);
$old->safe_psql('postgres',
	q{SELECT message_bus.publish('a', '"after"', transaction_id => 'after');
	  SELECT count(message_bus.ack(lease, ARRAY[id]))
	  FROM message_bus.claim('b c', batch => 10)});

# one who publishes and is gone, whom the new cluster never knew
$old->safe_psql('postgres', $_)
  for 'CREATE ROLE gone',
  q{SELECT message_bus.grant_channel('a', 'gone', 'publish')},
  q{SET ROLE gone; SELECT message_bus.publish('a', '"of one who is gone"')},
  q{SELECT message_bus.revoke_channel('a', 'gone', 'all')},
  'DROP ROLE gone';

# a channel that keeps subjects apart
$old->safe_psql(
	'postgres', q{
	SELECT message_bus.alter_channel('default', visibility => 'subject');
	SELECT message_bus.grant_channel('default', 'writer', 'all');
	SELECT message_bus.grant_channel('default', 'other', 'consume');
	SELECT message_bus.grant_channel('default', 'reader', 'consume');
	SELECT message_bus.grant_channel('default', 'reader', 'all_subjects');
	SET ROLE writer; SET request.jwt.claims = '{"sub": "ann"}';
	SELECT message_bus.publish('default', '1', recipient => 'bob')});

# sessions that have been ended
$old->safe_psql('postgres', q{SELECT message_bus.end_sessions('ann', 'writer');
	SELECT message_bus.end_sessions(NULL, 'other')});

# dead letters: of a channel that has one for them, one whose was dropped and
# made again, and one whose owner may not publish there
$old->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel('letters'),
		message_bus.create_channel('lost');
	SELECT message_bus.create_channel('dies', max_attempts => 1, dead_letter => 'letters'),
		message_bus.create_channel('bereft', max_attempts => 1, dead_letter => 'lost'),
		message_bus.create_channel('poor', max_attempts => 1, dead_letter => 'letters');
	SELECT message_bus.drop_channel('lost'), message_bus.create_channel('lost');
	SELECT message_bus.alter_channel('poor', owner => 'writer');
	SELECT message_bus.create_subscription(c, 's')
	FROM unnest(ARRAY['dies', 'bereft', 'poor']) c});
$old->safe_psql('postgres',
	qq{SELECT message_bus.publish('$_', '"$_"');
	   SELECT message_bus.nack(lease) FROM message_bus.claim('$_', 's')})
  foreach 'dies', 'bereft', 'poor';
my $dead = q{
	SELECT channel, dead_letter, dead_letter_state FROM message_bus.channels
		WHERE channel IN ('dies', 'bereft', 'poor', 'lost') ORDER BY channel;
	SELECT channel, message_id, dead_letter, not_moved
		FROM message_bus.dead_letters ORDER BY channel};
my $dead_before = $old->safe_psql('postgres', $dead);

like(
	$dead_before =~ s/\|\d+\|/|N|/gr,
	qr/^bereft\|\|dropped
dies\|letters\|ready
lost\|\|
poor\|letters\|denied
bereft\|N\|\|dropped
dies\|N\|letters\|
poor\|N\|\|denied$/,
	'there are dead letters, and what stayed in place');

my $before = $old->safe_psql('postgres', $summary);
my $last_id = $old->safe_psql('postgres',
	q{SELECT max(id) FROM message_bus.messages});

# a dump taken while somebody publishes can be restored as well
command_ok(
	[
		'pg_dump', '--format=custom', "--file=$dump", '--host',
		$old->host, '--port', $old->port, 'postgres'
	],
	'pg_dump');

# restored into an empty database that a worker waits for
$new->safe_psql('postgres', 'CREATE DATABASE restored');
command_ok(
	[
		'pg_restore', '--exit-on-error', '--host', $new->host,
		'--port', $new->port, '--dbname', 'restored', $dump
	],
	'pg_restore into a database whose worker waits for the extension');
bus_ready($new, 'restored');
is($new->safe_psql('restored', $summary),
	$before, 'all messages are there, with their ids and checksums');
is( $new->safe_psql(
		'restored',
		q{SELECT count(*) FROM message_bus.messages m,
		  LATERAL message_bus.get_bytes(m.id) AS bytes
		  WHERE sha256(bytes) = m.sha256 AND channel <> 'default'}),
	1006,
	'their bytes are right');
is( $new->safe_psql(
		'restored',
		q{SET ROLE reader; SELECT count(*) FROM message_bus.peek('a',
		  max_messages => 1000)}),
	502,
	'grants of channels are there');
sql_fails(
	$new, 'restored',
	q{SET ROLE reader; SELECT message_bus.publish('a', '1')},
	'42501', qr/a/, 'and no more than was granted');
is( $new->safe_psql(
		'restored', q{
		SET ROLE reader; SELECT recipient FROM message_bus.messages
			WHERE channel = 'default' AND publisher = 'writer';
		SET ROLE other; SELECT count(*) FROM message_bus.peek('default');
		SET ROLE writer; SELECT count(*) FROM message_bus.peek('default');
		SET request.jwt.claims = '{"sub": "cid"}';
		SELECT count(*) FROM message_bus.peek('default');
		SET request.jwt.claims = '{"sub": "bob"}';
		SELECT count(*) FROM message_bus.peek('default')}),
	"bob\n0\n1\n0\n1",
	'a channel still keeps subjects apart, and shows all to all_subjects');
is( $new->safe_psql('restored', 'TABLE message_bus.session_end ORDER BY 1'),
	$old->safe_psql('postgres', 'TABLE message_bus.session_end ORDER BY 1'),
	'sessions that have been ended stay so');
sql_fails(
	$new, 'restored',
	q{SET ROLE reader; SELECT count(*) FROM message_bus.message},
	'42501', qr/message/, 'the tables are as closed as before');
is( $new->safe_psql(
		'restored', q{
		SELECT count(*) FROM pg_class
		WHERE relname ~ '^(message|event)_[0-9]+$'
		  AND (NOT relrowsecurity
			   OR has_table_privilege('reader', oid, 'SELECT'))}),
	0,
	'and so is every segment');

is( $new->safe_psql(
		'restored', q{
		SET ROLE writer; SELECT count(message_bus.publish('a', '"new"'));
		RESET ROLE; SELECT count(DISTINCT publisher_id), count(*)
		FROM message_bus.publisher WHERE name IN ('gone', 'writer');
		SELECT publisher, count(*) FROM message_bus.messages
		WHERE channel = 'a' GROUP BY publisher ORDER BY publisher}),
	"1\n2|2\ngone|1\npostgres|501\nwriter|1",
	'the publisher that is gone has its name, and nobody else has it');

my $next_id = $new->safe_psql('restored',
	q{SELECT message_bus.publish('a', '"new"')});

cmp_ok($next_id, '>', $last_id, 'new ids are above the restored ones');
cmp_ok($next_id >> 24, '>', $last_id >> 24, 'in a segment of their own');
is( $new->safe_psql(
		'restored',
		q{SELECT message_bus.publish('a', '"after"',
			transaction_id => 'after')
		  = (SELECT id FROM message_bus.get_by_transaction('a', 'after'))}),
	't',
	'restored transaction ids are known');
is($new->safe_psql('restored', $dead),
	$dead_before, 'dead letters, and what stayed in place, are there');
is( $new->safe_psql(
		'restored', q{
		SELECT message_bus.alter_channel('bereft', dead_letter => 'lost');
		SELECT message_bus.redrive('bereft') + message_bus.redrive('letters');
		SELECT payload FROM message_bus.claim('bereft', 's');
		SELECT payload FROM message_bus.claim('dies', 's')}),
	qq{\n2\n"bereft"\n"dies"}, 'and are redriven');
is( $new->safe_psql(
		'restored',
		q{SELECT count(*) FROM message_bus.create_channel('new channel')}),
	1,
	'channels are numbered above the restored ones');
$new->safe_psql('restored', 'SELECT message_bus.expire()');
is($new->safe_psql('restored', $summary =~ s/<> 'default'/IN ('a', 'b c')/r)
	  =~ s/\|.*//sr,
	1004, 'nothing that has not expired is retired');

# and a second time, of the restored database
command_ok(
	[
		'pg_dump', '--format=custom', "--file=$dump.2", '--host',
		$new->host, '--port', $new->port, 'restored'
	],
	'pg_dump of the restored database');
$new->safe_psql('postgres', 'DROP DATABASE restored');
$new->safe_psql('postgres', 'CREATE DATABASE restored');
command_ok(
	[
		'pg_restore', '--exit-on-error', '--host', $new->host,
		'--port', $new->port, '--dbname', 'restored', "$dump.2"
	],
	'its restore');
# at once, so that the worker may not have seen what was restored
$new->restart;
bus_ready($new, 'restored');
cmp_ok(
	$new->safe_psql('restored',
		q{SELECT min(lease) FROM message_bus.claim('b c', batch => 10)}),
	'>',
	$new->safe_psql('restored', 'SELECT max(lease) FROM message_bus.ack'),
	'leases are above the restored ones');
is( $new->safe_psql(
		'restored', q{
		SELECT count(*) FROM message_bus.leases
		JOIN message_bus.ack ON message_id BETWEEN lo AND hi}),
	0,
	'what was acked before the dump does not come again');
ok($new->safe_psql('restored', q{SELECT message_bus.publish('a', '1')})
	  > $next_id, 'ids go on above again');

$old->stop;
$new->stop;
done_testing();
