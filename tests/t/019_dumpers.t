# tests/t/019_dumpers.t
#
# Who can dump a bus: a superuser, and who may read all data and bypasses row
# security.  Who cannot is told so, and can dump all the rest.

use strict;
use warnings;

use MessageBus::Log;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('dumpers',
	databases => [qw(app copy rest)],
	conf => "message_bus.worker_interval = 50ms\nmessage_bus.log_interval = 10ms\n");
my $dumps = 0;

sub app
{
	return $node->safe_psql('app', $_[0]);
}

# dump runs pg_dump as a role, and returns its status, the file it has written
# and what it said.
sub dump_as
{
	my ($role, @options) = @_;
	my $file = $node->basedir . '/dump_' . ++$dumps;
	my $said;
	my $ok = IPC::Run::run(
		[
			'pg_dump', '--host', $node->host, '--port', $node->port,
			'--username', $role, '--file', $file, @options, 'app'
		],
		'>', '/dev/null', '2>', \$said);

	return ($ok, $file, $said);
}

# text returns a dump without what is random in it.
sub text
{
	return slurp_file($_[0]) =~ s/^\\(un)?restrict.*\n//gmr;
}

# delivered returns the payloads that a subscription of a restored bus gets.
sub delivered
{
	my ($database) = @_;

	wait_for('the restored bus',
		sub { $node->safe_psql($database, q{SELECT bool_or(ready)
			FROM message_bus.worker_status}) eq 't' });
	return $node->poll_query_until($database,
		q{SELECT count(*) = 40 FROM message_bus.messages}) && $node->safe_psql(
		$database, q{
		SELECT string_agg(payload::text, ' ' ORDER BY (payload #>> '{}')::int)
		FROM message_bus.claim('orders', 's', 100)});
}

$node->safe_psql('postgres', q{
	CREATE ROLE app_owner LOGIN;
	CREATE ROLE dumper LOGIN BYPASSRLS;
	GRANT pg_read_all_data TO dumper;
	CREATE ROLE operator LOGIN NOINHERIT;
	GRANT dumper TO operator;
	CREATE ROLE analyst LOGIN;
	GRANT pg_read_all_data TO analyst;
	CREATE ROLE worker_of_app LOGIN;
	CREATE DATABASE app OWNER app_owner;
	CREATE DATABASE copy;
	CREATE DATABASE rest});
create_bus($node, 'app');
app(q{
	CREATE TABLE public.customers AS SELECT 1 AS id;
	ALTER TABLE public.customers OWNER TO app_owner;
	SELECT message_bus.create_channel('orders');
	SELECT message_bus.grant_channel('orders', 'worker_of_app', 'all');
	SELECT message_bus.create_subscription('orders', 's');
	SELECT message_bus.set_jwt_keys('{"keys": []}');
	SELECT count(message_bus.publish('orders', to_json(i)))
	FROM generate_series(1, 39) i});
app(q{SELECT message_bus.ack(lease, array_agg(id))
	FROM message_bus.claim('orders', 's', 10) GROUP BY lease});
app(q{SELECT message_bus.nack(lease, array_agg(id), delay => '0')
	FROM message_bus.claim('orders', 's', 5) GROUP BY lease});

# dumps are compared
log_covered($node, 'app');
my $superuser = $node->safe_psql('postgres', 'SELECT current_user');
my ($ok, $whole) = dump_as($superuser);

ok($ok, 'a superuser dumps');

# ----------
# Who can
# ----------

foreach my $who (
	[ dumper => 'who reads all data and bypasses row security' ],
	[ operator => 'a member of that one, by --role', '--role=dumper' ])
{
	my ($role, $name, @options) = @$who;
	my ($done, $file, $said) = dump_as($role, @options);

	ok($done, "$name dumps") || diag($said);
	is(text($file), text($whole), 'all that a superuser would');
}

my ($done, $directory, $said) =
  dump_as('dumper', '--format=directory', '--jobs=2');

ok($done, 'with several connections, too') || diag($said);
command_ok(
	[
		'pg_restore', '--host', $node->host, '--port', $node->port,
		'--exit-on-error', '--jobs=2', '--dbname=copy', $directory
	],
	'a superuser restores that');
is(delivered('copy'), join(' ', 11 .. 39), 'and what was not acked is delivered');

# ----------
# Who cannot
# ----------

($done, undef, $said) = dump_as('analyst');
ok(!$done, 'who does not bypass row security gets no dump that lacks messages');
like($said, qr/row-level security/, 'and is told why');
($done, undef, $said) = dump_as('app_owner');
ok(!$done, 'the owner of the database cannot read what others publish');
like($said, qr/permission denied for table/, 'and is told so');
($done, my $rest, $said) = dump_as('app_owner', '--exclude-schema=message_bus');
ok($done, 'but dumps all but the bus') || diag($said);
unlike(text($rest), qr/^COPY message_bus\./m, 'nothing of the bus is in it');
like(text($rest), qr/^COPY public\.customers/m, 'what is his is');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', 'rest', '-f', $rest ],
	'that is restored');
bus_ready($node, 'rest');
is($node->safe_psql('rest', q{SELECT count(*) FROM message_bus.messages}),
	1, 'beside a new bus');

# and he can where that is given to him
$node->safe_psql('postgres',
	'GRANT pg_read_all_data TO app_owner; ALTER ROLE app_owner BYPASSRLS');
($done, my $owned, $said) = dump_as('app_owner');
ok($done, 'the owner of the database dumps when he may') || diag($said);
is(text($owned), text($whole), 'all that a superuser would');

$node->stop;
done_testing();
