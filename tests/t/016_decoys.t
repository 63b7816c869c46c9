# tests/t/016_decoys.t
#
# Somebody who may create in a schema that the superuser's search_path names
# puts operators and functions there: with the signature of each of the
# server's own, and operators for types that the server has none for.  Nothing
# of the extension may call one: not its script, its functions, its views, its
# worker.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('node',
	conf => "message_bus.worker_interval = 50ms\n"
	  . "max_locks_per_transaction = 1024\n");

# Each decoy fails, in the schema's own way.  Those of the server's signatures
# that no SQL function can have (internal, pseudo-types but any...) are passed
# over.
my $make = q{
CREATE SCHEMA %1$s;
CREATE FUNCTION %1$s.called() RETURNS boolean LANGUAGE plpgsql
	AS $$BEGIN RAISE EXCEPTION 'a decoy in %1$s was called'; END$$;
DO $do$
DECLARE
	it record;
	types text[] := '{oid,integer,bigint,smallint,"\"char\"",text,name,regclass,regproc,regprocedure,regnamespace,regrole,
		boolean,bytea,json,jsonb,timestamptz,interval,integer[],bigint[],text[],oid[],float8,numeric}';
	made integer := 0;
BEGIN
	FOR it IN
		-- as the server has them
		SELECT o.oprname AS op, NULLIF(o.oprleft, 0)::regtype::text AS l, o.oprright::regtype::text AS r
		FROM pg_catalog.pg_operator o
		WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprright <> 0
			AND o.oprleft::regtype::text !~ '^any' AND o.oprright::regtype::text !~ '^any'
		UNION
		-- and as it has none
		SELECT op, l, r FROM unnest(types) l, unnest(types) r,
			unnest('{=,<>,<,<=,>,>=,||,+,-,*,/,%%,&,|,->,->>,#>,#>>,@>,?,~}'::text[]) op
	LOOP
		BEGIN
			EXECUTE format('CREATE FUNCTION %1$s.f%%s(%%s) RETURNS boolean LANGUAGE sql AS ''SELECT %1$s.called()''',
				made, concat_ws(', ', it.l, it.r));
			EXECUTE format('CREATE OPERATOR %1$s.%%s (FUNCTION = %1$s.f%%s, %%sRIGHTARG = %%s)', it.op, made,
				CASE WHEN it.l IS NOT NULL THEN 'LEFTARG = ' || it.l || ', ' ELSE '' END, it.r);
			made := made + 1;
		EXCEPTION WHEN OTHERS THEN NULL;
		END;
	END LOOP;
	RAISE NOTICE '%% operators', made;
	made := 0;
	FOR it IN
		SELECT p.oid, p.proname, pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result
		FROM pg_catalog.pg_proc p
		WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND p.provariadic = 0
			AND p.prorettype <> 'internal'::regtype AND NOT 'internal'::regtype = ANY (p.proargtypes)
			AND NOT p.proretset
	LOOP
		BEGIN
			EXECUTE format('CREATE FUNCTION %1$s.%%I(%%s) RETURNS %%s LANGUAGE plpgsql AS ''BEGIN PERFORM %1$s.called(); END''',
				it.proname, it.arguments, it.result);
			made := made + 1;
		EXCEPTION WHEN OTHERS THEN NULL;
		END;
	END LOOP;
	RAISE NOTICE '%% functions', made;
END
$do$};
my ($rc, $out, $err);

foreach my $schema ('first', 'last')
{
	($rc, $out, $err) =
	  $node->psql('postgres', sprintf($make, $schema), timeout => 170);
	like($err, qr/[1-9]\d{3} operators.*[1-9]\d{3} functions/s,
		"decoys in $schema");
}
$node->safe_psql('postgres',
	q{ALTER DATABASE postgres SET search_path = first, pg_catalog, last});
($rc, $out, $err) = $node->psql('postgres', q{SELECT 1 WHERE 1 = 1});
like($err, qr/a decoy in first was called/, 'they are called by others');
($rc, $out, $err) =
  $node->psql('postgres', q{SET search_path = pg_catalog, last;
	SELECT 1 WHERE 1::oid = 1::integer});
like($err, qr/a decoy in last was called/, 'and those that the server lacks');

# bus runs a statement and shows what it said.
sub bus
{
	my ($sql, $name) = @_;

	($rc, $out, $err) = $node->psql('postgres', $sql);
	is($err, '', $name // $sql);
	return $out;
}

bus('CREATE EXTENSION message_bus');
wait_for('the worker',
	sub { ($node->psql('postgres', q{SELECT message_bus.expire()}))[0] == 0 });
bus(q{SELECT message_bus.create_channel('c', dead_letter => 'default', max_attempts => 2)});
bus(q{SELECT message_bus.alter_channel('c', backoff => '0')});
bus(q{SELECT message_bus.create_channel('a', retention => 'acked')});
bus(q{SELECT message_bus.grant_channel('c', 'pg_monitor', 'all')});
bus(q{SELECT message_bus.revoke_channel('c', 'pg_monitor', 'publish')});
bus(q{SELECT message_bus.create_subscription('c', 's', ordered => true)});
bus(q{SELECT message_bus.publish('c', '{"n": 1}', headers => '{"h": 1}', key => 'k', transaction_id => 't')});
bus(q{SELECT message_bus.publish('c', '{"n": 1}', transaction_id => 't')});
bus(q{SELECT message_bus.publish_batch('c', '[{"payload": 2}, {"payload": 3, "delay": 1}]')});
bus(q{SELECT message_bus.publish_batch_bytes('a', ARRAY['\x01', '\x02']::bytea[])});
bus(q{SELECT message_bus.store_message('s1', 'session', 'tool', 'provider', '{"a": 1}')});
my $lease =
  bus(q{SELECT lease FROM message_bus.claim('c', 's') LIMIT 1}, 'claim');
bus("SELECT message_bus.extend($lease, '1 minute')", 'extend');
bus("SELECT message_bus.nack($lease, reason => 'no')", 'nack');
$lease = bus(q{SELECT lease FROM message_bus.claim('c', 's', wait => '5 seconds') LIMIT 1},
	'claim again');
bus("SELECT message_bus.nack($lease, reason => 'no')", 'a death');
bus(q{SELECT message_bus.redrive('default')});
bus(q{SELECT message_bus.retrieve_message('s1')});
bus(q{SELECT message_bus.get_by_transaction('c', 't')});
bus(q{SELECT message_bus.peek('c')});
bus(q{SELECT message_bus.pause('c', 's'), message_bus.resume('c', 's')});
bus(q{SELECT message_bus.seek('c', 's', 'latest')});
bus(q{CALL message_bus.wait(ARRAY['c'], ARRAY['s'], '0')});
bus(q{INSERT INTO message_bus.message_bus (transaction_id, payload) VALUES ('v', '{"v": 1}')});
bus(q{UPDATE message_bus.message_bus SET accessed_at = pg_catalog.now()});
bus(q{DELETE FROM message_bus.message_bus});
bus(q{SELECT message_bus.delete_message('s1')});
bus(q{SELECT message_bus.json_text('{"a": 1}', 'a'), message_bus.id_node(1), message_bus.lease_node(1)});
bus(q{SELECT message_bus.gateway_fault('postgres', false)});
bus(q{SELECT message_bus.bus_fault()});
bus(q{SELECT message_bus.set_jwt_keys('{"keys": [{"kty": "oct", "kid": "k", "alg": "HS256",
	"k": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE"}]}')});
bus(q{SELECT message_bus.end_sessions('ann', 'pg_monitor')});
bus(qq{SET message_bus.relay_role = 'postgres';
	SELECT message_bus.relay(ARRAY[1]::bigint[],
	ARRAY[pg_catalog.convert_to(pg_catalog.chr(1) OPERATOR(pg_catalog.||)
		'{"jsonrpc":"2.0","id":1,"method":"peek","params":{"channel":"c"}}', 'UTF8')])}, 'relay');
foreach my $view (
	split "\n",
	$node->safe_psql(
		'postgres', q{SET search_path = pg_catalog;
		SELECT relname FROM pg_class WHERE relkind = 'v'
		AND relnamespace = 'message_bus'::regnamespace}))
{
	bus("SELECT * FROM message_bus.$view", "view $view");
}
bus(q{SELECT message_bus.purge_channel('c')});
bus(q{SELECT message_bus.drop_subscription('c', 's'), message_bus.drop_channel('c')});
bus(q{SELECT message_bus.expire()});
bus(q{INSERT INTO message_bus.channel SELECT * FROM message_bus.channel}, 'a restored default channel');
$node->restart;
wait_for('the worker again',
	sub { ($node->psql('postgres', q{SELECT message_bus.expire()}))[0] == 0 });
bus(q{SELECT message_bus.publish('a', '1')});
is( bus(q{SELECT last_error FROM message_bus.worker_status}, 'its status'),
	'', 'the worker has no error');
unlike(slurp_file($node->logfile), qr/worker.*a decoy in|a decoy in.*worker/,
	'nor has its log');
bus('DROP EXTENSION message_bus CASCADE');

$node->stop;
done_testing();
