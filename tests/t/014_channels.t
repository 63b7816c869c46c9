# tests/t/014_channels.t
#
# More channels than the server follows: those published to last are known,
# all work, and what is dropped frees its place.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('channels');

# sql returns what a statement returns.
sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# publish_all publishes to channels from .. to; a third lives a day.
sub publish_all
{
	my ($from, $to, $payload) = @_;

	return sql(
		"SELECT count(message_bus.publish('c' || i, to_json($payload))) "
		  . "FROM generate_series($from, $to) i");
}

create_bus($node);

# created, published to and dropped
is( sql(q{
	DO $$
	BEGIN
		FOR i IN 1 .. 33 LOOP
			PERFORM message_bus.create_channel('d' || n) FROM generate_series(1, 1000) n;
			PERFORM message_bus.publish('d' || n, '1') FROM generate_series(1, 1000) n;
			PERFORM message_bus.drop_channel('d' || n) FROM generate_series(1, 1000) n;
			COMMIT;
		END LOOP;
	END
	$$;
	SELECT value <= 2 FROM (SELECT channels_followed AS value FROM message_bus.worker_status) w}),
	't',
	'dropped channels leave nothing');
sql(q{BEGIN; SELECT message_bus.create_channel('kept');
	SELECT message_bus.publish('kept', '1'); COMMIT;
	BEGIN; SAVEPOINT a; SELECT message_bus.drop_channel('kept');
	ROLLBACK TO a; COMMIT});
is(sql('SELECT channels_followed FROM message_bus.worker_status'),
	2, 'one whose drop was rolled back is still known');

# living ones, more than there are places for
sql(q{SELECT count(message_bus.create_channel('c' || i,
	ttl => CASE WHEN i % 3 = 0 THEN '1 day'::interval ELSE '1 hour' END))
	FROM generate_series(1, 105000) i;
	SELECT count(message_bus.create_subscription('c' || i, 's'))
	FROM generate_series(1, 105000, 100) i});
is(publish_all(1, 105000, 1), 105000, '105,000 channels are published to');
is(publish_all(1, 20000, 2), 20000, 'again, those that went longest');
cmp_ok(sql('SELECT channels_followed FROM message_bus.worker_status'),
	'<', 100000, 'some were let go');
is( sql(q{SELECT sum(n) FROM generate_series(1, 105000, 100) i, LATERAL (SELECT count(*) n FROM message_bus.claim('c' || i, 's', 10)) c}
	),
	1250, 'consumers get all');
is(publish_all(1, 105000, 3), 105000, 'and once more');
is( sql(q{SELECT sum(n) FROM generate_series(1, 105000, 100) i, LATERAL (SELECT count(*) n FROM message_bus.claim('c' || i, 's', 10)) c}
	),
	1050, 'and consumers get that');
is( sql(q{SELECT count(*) FROM (SELECT payload::text::int > lag(payload::text::int)
	OVER (PARTITION BY channel_id ORDER BY id) AS later FROM (SELECT channel_id, id,
	convert_from(payload, 'utf8') AS payload FROM message_bus.message
	JOIN message_bus.channel USING (channel_id) WHERE name LIKE 'c%') m) o
	WHERE NOT later}),
	0, 'ids of a channel only grow');
cmp_ok(sql('SELECT count(*) FROM message_bus.segment'),
	'<=', 8, 'few segments were opened for it');

$node->stop;
done_testing();
