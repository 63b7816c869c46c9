# tests/t/028_late_data.t
#
# A restore whose data come hours after its schema: a segment waits for its
# secret, and so for its acks, as long as data come.

use strict;
use warnings;

use MessageBus::Clock;
use MessageBus::Restore;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = clock_node('late',
	databases => [qw(old new)],
	conf => "message_bus.worker_interval = 50ms\n");
my $dump = $node->basedir . '/dump';

# query returns what a query of the new database returns.
sub query
{
	my ($sql) = @_;

	return $node->safe_psql('new', $sql);
}

# restore runs pg_restore into the new database.
sub restore
{
	my ($name, @option) = @_;

	restore_ok($node, 'new', $dump, $name, @option);
	return;
}

# passes waits until the worker of the new database has made some.
sub passes
{
	my $passes = query('SELECT passes FROM message_bus.worker_status');

	wait_for('passes of the worker',
		sub {
			query('SELECT passes FROM message_bus.worker_status') > $passes + 20;
		});
	return;
}

# settled tells whether the worker has taken in a segment.
sub settled
{
	my ($segment) = @_;

	return query(
		qq{SELECT count(*) FROM pg_depend WHERE classid = 'pg_class'::regclass
			AND objid = 'message_bus.message_$segment'::regclass
			AND refclassid = 'pg_extension'::regclass});
}

$node->safe_psql('postgres', "CREATE DATABASE $_") foreach qw(old new);
create_bus($node, 'old');
$node->safe_psql('old',
	q{SELECT message_bus.create_channel('c', ttl => '3 days');
	SELECT message_bus.create_subscription('c', 's');
	SELECT message_bus.create_channel('e', ttl => '10 days')});
my ($first, $second) = split /\n/, $node->safe_psql('old',
	q{SELECT max(message_bus.publish('c', to_json(i)) >> 24) FROM generate_series(1, 4) i;
	SELECT message_bus.publish('e', '1') >> 24});
my $secret = $node->safe_psql('old', "SELECT md5(first::text) FROM message_bus.secret_$first");
$node->safe_psql('old',
	q{SELECT message_bus.ack(lease) FROM message_bus.claim('c', 's', 2)});
command_ok(
	[
		'pg_dump', '--format=custom', "--file=$dump", '--host',
		$node->host, '--port', $node->port, 'old'
	],
	'pg_dump');

# the schema
restore('the schema', '--schema-only');
restore('channels and subscriptions',
	'--data-only', '--table=channel', '--table=subscription',
	'--table=channel_id', '--table=subscription_id', '--table=segment');
passes();

# two hours later
clock_pass(7200);
passes();
restore('the messages', '--data-only', "--table=message_$first");
passes();
is(settled($first), 0, 'a segment waits for what is on its way');
clock_pass(3000);
restore('those of another one', '--data-only', "--table=event_$second");
clock_pass(3000);
passes();
is(settled($first), 0, 'as long as something comes into any');

# one that takes long
query("CREATE TABLE kept AS SELECT * FROM message_bus.message_$second");
my $long = $node->background_psql('new');

$long->query_safe(
	"BEGIN; INSERT INTO message_bus.message_$second SELECT * FROM kept");
clock_pass(7200);
passes();
is(settled($first), 0, 'also where one table takes hours');
$long->query_safe('ROLLBACK');
$long->quit;

restore('the acks', '--data-only', "--table=ack_$first");
restore('the secret', '--data-only', "--table=secret_$first");
wait_for('the segment', sub { settled($first) == 1 });
is(query("SELECT count(*), min(md5(first::text)) FROM message_bus.secret_$first"),
	"1|$secret", 'it has its own secret, and no other');
is( query(
		q{SELECT string_agg(payload #>> '{}', ' ' ORDER BY id)
		FROM message_bus.claim('c', 's', 10, wait => '20 s')}),
	'3 4',
	'what was acknowledged does not come');

# what nobody brings is not waited for without end
restore('messages without a secret',
	'--data-only', "--table=message_$second");
clock_pass(3500);
passes();
is(settled($second), 0, 'a secret is waited for');
clock_pass(200);
wait_for('the segment', sub { settled($second) == 1 });
is(query("SELECT count(*) FROM message_bus.secret_$second"),
	1, 'for an hour');

$node->stop;
done_testing();
