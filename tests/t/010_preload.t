# tests/t/010_preload.t
#
# What the bus says where it cannot work: not preloaded, database not listed,
# no extension, wrong encoding; and that listing a database needs no restart.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $publish = q{SELECT message_bus.publish('default', '{"a": 1}')};
my $node = PostgreSQL::Test::Cluster->new('preload');

$node->init(extra => [ '--encoding=UTF8', '--no-locale' ]);
$node->start;

# a server that has not loaded the library gets no extension that cannot work
for my $how ('CREATE EXTENSION message_bus',
	q{LOAD 'message_bus'; CREATE EXTENSION message_bus})
{
	sql_fails($node, 'postgres', $how, '55000',
		qr/not preloaded.*HINT:.*shared_preload_libraries/s, $how);
}
is( $node->safe_psql('postgres',
		q{SELECT count(*) FROM pg_namespace WHERE nspname = 'message_bus'}),
	0,
	'nothing of it is left');

# what was made with it tells the same when the library is gone again
$node->append_conf('postgresql.conf', bus_conf('postgres'));
$node->restart;
create_bus($node, 'postgres');
$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', q{''});
$node->restart;
sql_fails($node, 'postgres', $publish, '55000',
	qr/not preloaded.*HINT:.*shared_preload_libraries/s,
	'publishing without preloading');
sql_fails(
	$node, 'postgres',
	q{SELECT message_bus.expire()},
	'55000',
	qr/not preloaded.*HINT:.*shared_preload_libraries/s,
	'asking for expiry without preloading');
$node->safe_psql('postgres', 'DROP EXTENSION message_bus');

# preloaded, but the database is not listed
$node->append_conf('postgresql.conf', bus_conf('other'));
$node->restart;
$node->safe_psql('postgres', 'CREATE EXTENSION message_bus');
sql_fails($node, 'postgres', $publish, '55000',
	qr/does not serve database "postgres".*HINT:.*message_bus\.databases/s,
	'publishing where the database is not listed');
is($node->safe_psql('postgres', 'SELECT count(*) FROM message_bus.messages'),
	0, 'the views can be read there');

# listing it takes a reload
$node->append_conf('postgresql.conf', bus_conf('other', 'postgres'));
$node->reload;
bus_ready($node);
ok($node->safe_psql('postgres', $publish), 'publishing after a reload');

# a listed database that does not exist, and one without the extension
ok( $node->poll_query_until('postgres',
		q{SELECT unknown_databases = '{other}' FROM message_bus.worker_status}),
	'a listed name that is no database is told by worker_status');
$node->wait_for_log(
	qr/LOG:  message_bus\.databases names "other", which is no database/);
pass('and by the log');
$node->safe_psql('postgres', 'CREATE DATABASE other');
sql_fails($node, 'other', $publish, '3F000', qr/message_bus/,
	'publishing without the extension');
create_bus($node, 'other');
ok($node->safe_psql('other', $publish),
	'a listed database is served once it exists');
is( $node->safe_psql('postgres',
		'SELECT unknown_databases FROM message_bus.worker_status'),
	'{}',
	'all listed names are databases now');

# the wrong encoding
$node->safe_psql('postgres',
	q{CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1'
	  LOCALE 'C'});
sql_fails($node, 'latin', 'CREATE EXTENSION message_bus', '0A000',
	qr/UTF8.*LATIN1/, 'creating the extension in a LATIN1 database');

# settings are checked
sql_fails($node, 'postgres', q{SET message_bus.default_compression = 'rar'},
	'22023', qr/lz4/, 'an unknown compression');
sql_fails($node, 'postgres', q{SET message_bus.nonsense = 1},
	'42602', qr/message_bus/, 'an unknown setting');

$node->stop;
done_testing();
