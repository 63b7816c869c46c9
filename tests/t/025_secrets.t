# tests/t/025_secrets.t
#
# The secret of each segment: made with it, nobody's, whole after a restart,
# and gone in the commit that drops the segment.  Restores of it are in
# 023_restore_orders.t.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('secrets',
	conf => "message_bus.worker_interval = 100ms\n"
	  . "message_bus.segment_max_rows = 100\n");

# secrets returns the number and the bytes of each secret.
sub secrets
{
	my $tables = $node->safe_psql(
		'postgres', q{
		SELECT relname FROM pg_class
		WHERE relnamespace = 'message_bus'::regnamespace
		  AND relname ~ '^secret_[0-9]+$' ORDER BY oid});

	return map {
		$_ => $node->safe_psql('postgres',
			"SELECT string_agg(concat_ws(' ', first, second), ',') "
			  . "FROM message_bus.$_")
	} split "\n", $tables;
}

# default privileges give every new table away
$node->safe_psql(
	'postgres', q{
	CREATE ROLE somebody;
	ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO somebody, PUBLIC});
create_bus($node);
$node->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel('short', ttl => '1 hour');
	SELECT message_bus.create_channel('long')});
$node->safe_psql('postgres',
	q{SELECT count(message_bus.publish(c, '1')) FROM unnest(ARRAY['short', 'long']) c});

my %secret = secrets();
my $segments = $node->safe_psql('postgres',
	q{SELECT string_agg('secret_' || segment_no, ' ' ORDER BY segment_no)
	  FROM message_bus.segment});

is(join(' ', sort keys %secret), $segments, 'each segment has a secret');
is(scalar(keys %{ { reverse %secret } }),
	scalar(keys %secret), 'no two are the same');
is(scalar(grep { !/^[0-9a-f-]{36} [0-9a-f-]{36}$/ } values %secret),
	0, 'each is one row of 32 bytes');
is( $node->safe_psql(
		'postgres', q{
		SELECT count(*) FROM pg_class
		WHERE relname ~ '^secret_[0-9]+$'
		  AND (reltoastrelid <> 0 OR relhasindex OR relispartition
			OR relpersistence <> 'p' OR NOT relrowsecurity
			OR relowner <> (SELECT relowner FROM pg_class
			  WHERE oid = 'message_bus.message'::regclass)
			OR EXISTS (SELECT FROM aclexplode(relacl) a
			  WHERE a.grantee <> relowner)
			OR NOT EXISTS (SELECT FROM pg_depend d JOIN pg_extension e
			  ON d.refobjid = e.oid WHERE d.objid = pg_class.oid
			  AND e.extname = 'message_bus' AND d.deptype = 'a'))}),
	0,
	'they have no parent, index, TOAST table or rights, and go with the extension'
);
is( $node->safe_psql(
		'postgres', q{
		SELECT count(*) FROM pg_depend d JOIN pg_class c ON d.refobjid = c.oid
		WHERE c.relname ~ '^secret_[0-9]+$' AND d.classid = 'pg_rewrite'::regclass}),
	0,
	'no view has them');
sql_fails($node, 'postgres',
	'SET ROLE somebody; SELECT * FROM message_bus.' . (sort keys %secret)[0],
	'42501', qr/secret/, 'nobody reads them');

# a crash changes nothing
$node->stop('immediate');
$node->start;
bus_ready($node);
{
	my %after = secrets();

	is_deeply(
		[ @after{ sort keys %secret } ],
		[ @secret{ sort keys %secret } ],
		'they are there after a crash');
}

# gone with the segment: in no commit is one there without the other
my $short = $node->safe_psql('postgres',
	q{SELECT substring(m.tableoid::regclass::text FROM '[0-9]+$')
	  FROM message_bus.message m JOIN message_bus.channel c USING (channel_id)
	  WHERE c.name = 'short'});
my $file = $node->data_dir . '/'
  . $node->safe_psql('postgres',
	"SELECT pg_relation_filepath('message_bus.secret_$short')");

{
	my $holder = $node->background_psql('postgres');

	$holder->query_safe("BEGIN; LOCK TABLE message_bus.secret_$short IN ACCESS SHARE MODE");
	$node->safe_psql('postgres',
		'UPDATE message_bus.segment SET expires_at = clock_timestamp() '
		  . "WHERE segment_no = $short AND closed_at IS NOT NULL");
	wait_for(
		'the segment to wait for its drop',
		sub {
			$node->safe_psql('postgres',
				"SELECT detached FROM message_bus.segment WHERE segment_no = $short"
			) eq 't';
		});
	is( $node->safe_psql('postgres',
			"SELECT count(*) FROM pg_class WHERE relname IN ('message_$short', 'secret_$short')"
		),
		2,
		'who reads the secret holds up the drop of both');
	$holder->query_safe('COMMIT');
	$holder->quit;
}
wait_for(
	'the drop',
	sub {
		$node->safe_psql('postgres',
			"SELECT count(*) FROM message_bus.segment WHERE segment_no = $short"
		) eq '0';
	});
is( $node->safe_psql('postgres',
		"SELECT count(*) FROM pg_class WHERE relname ~ '^(message|event|ack|failure|secret)_$short\$'"),
	0,
	'secret and tables are gone');
wait_for('its file', sub { !-e $file || -z $file });
ok(1, 'nothing is left in its file');

# and with the extension
$node->safe_psql('postgres', 'DROP EXTENSION message_bus');
is( $node->safe_psql('postgres',
		"SELECT count(*) FROM pg_class WHERE relname ~ '^secret_[0-9]+\$'"),
	0,
	'none outlives the extension');

$node->stop;
done_testing();
