# tests/t/017_publications.t
#
# Whatever is published of the bus's tables, and with whatever wal_level, all
# that the worker and the functions update and delete is written.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('published',
	streaming => 1,
	conf => "wal_level = logical\n"
	  . "message_bus.worker_interval = 50ms\n"
	  . "message_bus.segment_max_rows = 20\n"
	  . "message_bus.segment_interval = 0\n");
my $round = 0;

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# tables returns the tables that can be published, and of each the first
# column that is not of its key, if it has one.
sub tables
{
	return map { [ split /\|/ ] } split /\n/, sql(
		q{
		SELECT c.oid::regclass, COALESCE((SELECT a.attname FROM pg_attribute a
				WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
					AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid
						AND i.indisprimary AND a.attnum = ANY (i.indkey))
				ORDER BY a.attnum LIMIT 1),
			(SELECT a.attname FROM pg_attribute a
				WHERE a.attrelid = c.oid AND a.attnum = 1))
		FROM pg_class c WHERE c.relnamespace = 'message_bus'::regnamespace
			AND c.relkind = 'r' AND c.relpersistence = 'p' ORDER BY 1});
}

# refused returns the tables of which a row cannot be updated or deleted, and
# what the server says.
sub refused
{
	my ($status, $out, $err) = $node->psql('postgres', q{
		DO $$
		DECLARE
			command text;
		BEGIN
			FOR command IN SELECT format(c, a.attrelid::regclass, a.attname)
				FROM pg_class t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = 1,
					unnest(ARRAY['UPDATE %1$s SET %2$I = %2$I WHERE false',
						'DELETE FROM %1$s WHERE false']) c
				WHERE t.relnamespace = 'message_bus'::regnamespace AND t.relkind = 'r'
			LOOP
				BEGIN
					EXECUTE command;
				EXCEPTION WHEN OTHERS THEN
					-- but for a segment that was dropped meanwhile
					IF SQLSTATE <> '42P01' AND command !~ '(FROM|UPDATE) [0-9]' THEN
						RAISE WARNING '%: %', command, SQLERRM;
					END IF;
				END;
			END LOOP;
		END
		$$});

	return $err;
}

# work has everybody do what he updates and deletes rows for, and checks that
# nothing of it failed.
sub work
{
	my ($name) = @_;
	my $channel = 'c' . ++$round;
	my $errors;

	# the worker begins an epoch, and removes old failures
	sql(q{INSERT INTO message_bus.error (at, sqlstate, function, role, pid, message)
		VALUES (now() - interval '8 days', '22023', 'old', 'me', 1, 'old')});
	$node->restart;
	bus_ready($node);
	is(refused(), '', "$name: every table can be updated and deleted from");
	sql(qq{
		SELECT message_bus.create_channel('$channel', retention => 'acked');
		SELECT message_bus.create_channel('short$round', ttl => '1 second');
		SELECT message_bus.create_subscription('$channel', 's');
		SELECT message_bus.create_subscription('$channel', 'gone');
		SELECT message_bus.grant_channel('$channel', 'pg_monitor', 'consume');
		SELECT message_bus.grant_channel('$channel', 'pg_monitor', 'publish');
		SELECT count(message_bus.publish(n, '1'))
		FROM unnest(ARRAY['$channel', 'short$round']) n, generate_series(1, 50);
		SELECT message_bus.revoke_channel('$channel', 'pg_monitor', 'publish');
		SELECT message_bus.alter_channel('$channel', max_attempts => 2);
		SELECT message_bus.pause('$channel', 's');
		SELECT message_bus.resume('$channel', 's');
		SELECT message_bus.seek('$channel', 's', 'earliest');
		SELECT message_bus.purge_channel('short$round');
		SELECT message_bus.set_jwt_keys('{"keys": []}');
		SELECT message_bus.end_sessions('ann', 'pg_monitor')
		FROM pg_catalog.generate_series(1, 2);
		SELECT message_bus.drop_subscription('$channel', 'gone')});
	sql(qq{
		SELECT message_bus.ack(lease, array_agg(id))
		FROM message_bus.claim('$channel', 's', 10) GROUP BY lease;
		SELECT message_bus.nack(lease, array_agg(id))
		FROM message_bus.claim('$channel', 's', 10) GROUP BY lease});
	$errors = $node->psql('postgres', q{SELECT message_bus.publish('none', '1')});
	isnt($errors, 0, "$name: a failure");
	wait_for('the checkpoint',
		sub { sql(q{SELECT count(*) FROM message_bus.checkpoint}) > 0 });
	sql(qq{SELECT message_bus.seek('$channel', 's', 'latest');
		SELECT message_bus.drop_channel('$channel')});
	wait_for('what has expired to go',
		sub { sql(q{SELECT count(*) FROM message_bus.segment
			WHERE expires_at < now()}) == 0 });
	wait_for('the dropped channel to be forgotten',
		sub { sql('SELECT count(*) FROM message_bus.channel_dropped') == 0 });
	wait_for('old failures to go',
		sub { sql(q{SELECT count(*) FROM message_bus.error
			WHERE function = 'old'}) == 0 });
	is( sql(q{SELECT CASE WHEN errors > 0 THEN last_error END
			FROM message_bus.worker_status}),
		'', "$name: the worker had no error");
}

create_bus($node);
is( sql(q{
		SELECT string_agg(c.relname, ' ') FROM pg_class c
		WHERE c.relnamespace = 'message_bus'::regnamespace AND c.relkind = 'r'
			AND c.relpersistence = 'p' AND c.relname !~ '_[0-9]+$'
			AND c.relreplident <> 'f' AND NOT EXISTS (SELECT FROM pg_index i
				WHERE i.indrelid = c.oid AND i.indisprimary)}),
	'', 'every table that is updated has a replica identity');

my @tables = tables();
my %what = (
	everything => 'FOR ALL TABLES',
	'the schema' => 'FOR TABLES IN SCHEMA message_bus',
	inserts => q{FOR ALL TABLES WITH (publish = 'insert')},
	deletes => q{FOR ALL TABLES WITH (publish = 'delete')},
	'by the root' => q{FOR ALL TABLES WITH (publish_via_partition_root)},
	'without the keys' => 'FOR TABLE '
	  . join(', ', map { "$_->[0] ($_->[1])" } @tables),
	filtered => 'FOR TABLE '
	  . join(', ', map { "$_->[0] WHERE ($_->[1] IS NOT NULL)" } @tables));

foreach my $name (sort keys %what)
{
	sql("CREATE PUBLICATION p $what{$name}");
	sql(q{SELECT pg_create_logical_replication_slot('s', 'pgoutput')});
	work($name);
	cmp_ok(
		sql(q{SELECT count(*) FROM pg_logical_slot_get_binary_changes('s', NULL,
			NULL, 'proto_version', '1', 'publication_names', 'p')}),
		'>', 0, "$name: and is sent");
	sql(q{SELECT pg_drop_replication_slot('s'); DROP PUBLICATION p});
}

# one who takes the identities away has them back as they were
my @identities = map { $_->[0] } tables();

sql('CREATE PUBLICATION p FOR ALL TABLES');
foreach my $table (@identities)
{
	# one of a segment may have been dropped meanwhile
	sql(qq{DO \$\$
		BEGIN
			ALTER TABLE $table REPLICA IDENTITY NOTHING;
		EXCEPTION WHEN undefined_table THEN NULL;
		END \$\$});
}
work('without identities');
sql('DROP PUBLICATION p');

# a table that is not the bus's is checked as ever
sql('CREATE TABLE public.plain (a int); CREATE PUBLICATION p FOR ALL TABLES');
sql_fails($node, 'postgres', 'DELETE FROM public.plain', '55000',
	qr/replica identity/, 'a table of somebody else');
sql('DROP TABLE public.plain');

foreach my $level (qw(replica minimal))
{
	$node->append_conf('postgresql.conf',
		"wal_level = $level\nmax_wal_senders = 0\narchive_mode = off\n");
	$node->restart;
	bus_ready($node);
	work("wal_level $level");
	my $id = sql(q{SELECT message_bus.publish('default', '"kept"')});
	$node->stop('immediate');
	$node->start;
	bus_ready($node);
	is(sql("SELECT payload FROM message_bus.get($id)"),
		'"kept"', "wal_level $level: a crash loses nothing");
}

$node->stop;
done_testing();
