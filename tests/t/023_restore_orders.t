# tests/t/023_restore_orders.t
#
# A dump whose segments begin at 5 is restored into clusters whose workers run
# already, in the orders that pg_restore allows, and beside a consumer.  What
# was not acknowledged is delivered, what was is not, numbering and leases
# go on above all that the dump names, and the segments keep their secrets.

use strict;
use warnings;

use MessageBus::Delivery;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my @orders = qw(whole jobs backwards schema_first tables consumer bare);
my $old = bus_node('old');
# a worker for each database, and the launchers
my $new = bus_node('new',
	databases => [ @orders, 'again' ],
	conf => "max_worker_processes = 16\n");
my $dump = $old->basedir . '/dump';

# restore runs pg_restore into a database.
sub restore
{
	my ($database, @option) = @_;

	command_ok(
		[
			'pg_restore', '--exit-on-error', @option, '--host', $new->host,
			'--port', $new->port, '--dbname', $database, $dump
		],
		"$database: pg_restore @option");
}

# worker_up waits for a worker, without publishing.
sub worker_up
{
	my ($database) = @_;

	wait_for('the worker',
		sub { ($new->psql($database, 'SELECT message_bus.expire()'))[0] == 0 }
	);
}

# settled waits until all segments of the dump show to readers.
sub settled
{
	my ($database) = @_;

	wait_for(
		'what was restored',
		sub {
			$new->safe_psql($database,
				q{SELECT count(*) FROM message_bus.peek('c')}) == 9;
		});
}

# secrets returns the secrets of the dump's segments.
sub secrets
{
	my ($node, $database) = @_;

	return $node->safe_psql($database, join ' UNION ALL ',
		map { "SELECT $_, first, second FROM message_bus.secret_$_" } 160, 192, 224);
}

# claimed claims, acks, and returns what came.
sub claimed
{
	my ($database, $wait) = @_;

	$wait //= '0';
	return $new->safe_psql(
		$database, qq{
		WITH d AS MATERIALIZED (SELECT * FROM message_bus.claim('c', 's', 100,
			wait => '$wait')),
		a AS MATERIALIZED (SELECT message_bus.ack(lease, array_agg(id)) FROM d
			GROUP BY lease)
		SELECT string_agg(payload::text, ' ' ORDER BY id) FROM d, a});
}

# expire_all lets everything expire and waits until all segments that were
# closed are gone.
sub expire_all
{
	my ($database) = @_;

	$new->safe_psql(
		$database, q{
		UPDATE message_bus.message SET expires_at = clock_timestamp()});
	wait_for(
		'all segments to be retired',
		sub {
			$new->safe_psql(
				$database, q{
				UPDATE message_bus.segment SET expires_at = clock_timestamp()
				WHERE closed_at IS NOT NULL;
				SELECT count(message_bus.expire()) - 1;
				SELECT count(*) FROM message_bus.segments
				WHERE state <> 'open'}) =~ /\n0$/;
		});
}

# goes_on checks that what is published after all is delivered.
sub goes_on
{
	my ($database) = @_;
	my $lease = $old->safe_psql('postgres',
		'SELECT max(lease) FROM message_bus.ack');
	my $no = $old->safe_psql('postgres',
		'SELECT max(no) FROM message_bus.failure');
	my $id;

	expire_all($database);
	if ($database eq 'whole')
	{
		$new->restart;
		worker_up($database);
	}
	$id = $new->safe_psql($database,
		q{SELECT message_bus.publish('c', '"new"')});
	cmp_ok($id >> 29, '>=', 8, "$database: numbered above the dump");
	is(claimed($database, '10 seconds'),
		'"new"', "$database: and it is delivered");
	cmp_ok(
		$new->safe_psql($database,
			'SELECT max(lease) FROM message_bus.ack'),
		'>', $lease, "$database: under a lease above the dump's");
	cmp_ok(
		$new->safe_psql($database, 'SELECT max(no) FROM message_bus.ack'),
		'>', $no, "$database: facts are numbered above the dump's");
}

$old->safe_psql('postgres', 'CREATE EXTENSION message_bus');
wait_for(
	'the worker',
	sub {
		$old->safe_psql('postgres',
			'SELECT epoch > 0 FROM message_bus.server_state') eq 't';
	});
$old->safe_psql('postgres',
	'UPDATE message_bus.server_state SET next_segment = 5 << 5');
foreach my $i (1 .. 3)
{
	$old->restart;
	$old->safe_psql('postgres',
		q{SELECT message_bus.create_channel('c');
		  SELECT message_bus.create_subscription('c', 's')})
	  if $i == 1;
	$old->safe_psql('postgres',
		qq{SELECT message_bus.publish('c', to_json($i * 10 + i))
		   FROM generate_series(1, 3) i});
}
# more subscriptions and grants than channels: several jobs load them first
$old->safe_psql(
	'postgres', q{
	SELECT count(message_bus.create_channel('many' || i)::text),
		count(message_bus.grant_channel('many' || i, 'pg_monitor', 'all')::text),
		count(message_bus.grant_channel('many' || i, 'pg_read_all_data', 'all')::text),
		count(message_bus.create_subscription('many' || i, 'one')::text),
		count(message_bus.create_subscription('many' || i, 'two')::text)
	FROM generate_series(1, 300) i;
	SELECT message_bus.publish('default', '"by default"');
	SELECT message_bus.ack(lease) FROM message_bus.claim('default');
	SELECT message_bus.grant_channel('default', 'pg_monitor', 'publish')});
# 11 is acked, 12 has failed, 13 is out, under leases as of a later time
$old->safe_psql('postgres',
	'UPDATE message_bus.server_state SET epoch = epoch + 5000');
$old->restart;
$old->safe_psql(
	'postgres', q{
	SELECT message_bus.ack(lease) FROM message_bus.claim('c', 's')});
$old->safe_psql(
	'postgres', q{
	SELECT message_bus.nack(lease) FROM message_bus.claim('c', 's')});
is( $old->safe_psql(
		'postgres',
		q{SELECT string_agg(DISTINCT (segment_no >> 5)::text, ' ')
		  FROM message_bus.segment}),
	'5 6 7',
	'a dump with segments 5 to 7');
command_ok(
	[
		'pg_dump', '--format=custom', "--file=$dump", '--host',
		$old->host, '--port', $old->port, 'postgres'
	],
	'pg_dump');

my $secrets = secrets($old, 'postgres');
my $all = '12 13 21 22 23 31 32 33';

# the extension is dropped and created again: no lease comes twice.  (Before
# a restore brings leases of a time that has not come: those that a server of
# before has begun are known only as long as their database is.)
$new->safe_psql('postgres', 'CREATE DATABASE again');
create_bus($new, 'again');
foreach my $between ('at once', 'after a restart')
{
	my $claim = q{SELECT lease FROM message_bus.claim('default')};
	my $next;

	bus_ready($new, 'again');
	my $lease = $new->safe_psql('again', $claim);

	$new->safe_psql('again', 'DROP EXTENSION message_bus');
	$new->restart if $between ne 'at once';
	create_bus($new, 'again');
	$next = $new->safe_psql('again', $claim);
	cmp_ok($next, '>', $lease, "leases are above those of before, $between");
	sql_fails(
		$new, 'again',
		"SELECT message_bus.ack($lease)",
		'55000', qr/lease $lease is not held/,
		"and one of before acks nothing, $between");
}

foreach my $database (@orders)
{
	$new->safe_psql('postgres', "CREATE DATABASE $database");
	next if $database eq 'schema_first' || $database eq 'tables';
	$new->safe_psql($database, 'CREATE EXTENSION message_bus');
	wait_for(
		'the worker',
		sub {
			$new->safe_psql($database,
				'SELECT next_segment > 0 AND epoch > 0 FROM message_bus.server_state'
			) eq 't';
		});
}

# as the dump comes
restore('whole');
settled('whole');
is(secrets($new, 'whole'), $secrets, 'whole: with their secrets');
is(claimed('whole', '10 seconds'), $all, 'whole: what was not acked comes');
goes_on('whole');

# several at a time
restore('jobs', '--jobs=4');
settled('jobs');
is(secrets($new, 'jobs'), $secrets, 'jobs: with their secrets');
is(claimed('jobs', '10 seconds'), $all, 'jobs: what was not acked comes');
goes_on('jobs');

# each table before those that it refers to, over a default channel that has
# been granted and claimed from
$new->safe_psql(
	'backwards', q{
	SELECT message_bus.grant_channel('default', 'pg_monitor', 'consume');
	SELECT message_bus.grant_channel('default', 'pg_read_all_data', 'consume');
	SELECT message_bus.publish('default', '"of before"')});
wait_for(
	'a subscription of before',
	sub {
		$new->safe_psql('backwards',
			q{SELECT payload FROM message_bus.claim('default')}) ne '';
	});
restore('backwards', '--schema-only');
foreach my $table (
	qw(subscription channel_grant channel_id subscription_id segment),
	map({ ("message_$_", "ack_$_", "failure_$_", "event_$_", "secret_$_") }
		  160, 192, 224),
	qw(channel))
{
	restore('backwards', '--data-only', "--table=$table");
}
settled('backwards');
is(claimed('backwards', '10 seconds'),
	$all, 'backwards: what was not acked comes');
is( $new->safe_psql(
		'backwards', q{
		SELECT count(*), count(DISTINCT c.name) FROM message_bus.channel_grant g
		JOIN message_bus.channel c USING (channel_id) WHERE c.name LIKE 'many%';
		SELECT count(*) FROM message_bus.subscriptions;
		SELECT grantee, may_publish, may_consume FROM message_bus.channel_grant
		WHERE channel_id = 1 ORDER BY grantee::text}),
	"600|300\n602\npg_monitor|t|t\npg_read_all_data|f|t",
	'backwards: all grants and subscriptions are there');
goes_on('backwards');

# the data long after the schema: the worker has seen the empty tables, and
# a restart between
restore('schema_first', '--schema-only');
$new->safe_psql('schema_first', 'SELECT message_bus.expire()');
$new->restart;
worker_up('schema_first');
restore('schema_first', '--data-only');
settled('schema_first');
is(secrets($new, 'schema_first'), $secrets, 'schema_first: with their secrets');
is(claimed('schema_first', '10 seconds'),
	$all, 'schema_first: what was not acked comes');
goes_on('schema_first');

# one table after the other, the rows of segments between, beside a consumer
# whose position is above all of them, and a publisher
restore('tables', '--schema-only');
restore('tables', '--data-only', map { "--table=$_" }
	  qw(channel subscription ack_160 failure_160));
wait_for(
	'the worker',
	sub {
		($new->psql('tables', q{SELECT message_bus.publish('c', '"first"')}))[0]
		  == 0;
	});
my @came = (claimed('tables', '10 seconds'));

foreach my $table (qw(message_224 segment message_160 message_192))
{
	restore('tables', '--data-only', "--table=$table");
	if ($table =~ /^message_(\d+)$/)
	{
		is(claimed('tables'), '', "$table does not show without its secret");
		restore('tables', '--data-only', "--table=secret_$1");
	}
	wait_for(
		$table,
		sub {
			push @came, split ' ', claimed('tables', '1 second');
			$table eq 'segment' || $came[-1] =~ /^\d/;
		});
	$came[-1] = 'x' . $came[-1] if $came[-1] =~ /^\d/;
}
is(join(' ', sort map { s/x//r } @came),
	"\"first\" $all", 'tables: each comes once, and what was acked does not');
$new->restart;
worker_up('tables');
is(secrets($new, 'tables'), $secrets, 'tables: with their secrets');
goes_on('tables');

# over a running consumer
{
	my $consumer = $new->background_psql('consumer', on_error_stop => 0);
	my $came = '';
	my $pid;

	$pid = fork // die;
	if ($pid == 0)
	{
		exec 'pg_restore', '--exit-on-error', '--host', $new->host,
		  '--port', $new->port, '--dbname', 'consumer', $dump;
	}
	wait_for(
		'all of the dump',
		sub {
			my ($out) = $consumer->query(
				q{WITH d AS MATERIALIZED (SELECT * FROM message_bus.claim('c',
					's', 2)),
				  a AS MATERIALIZED (SELECT message_bus.ack(lease,
					array_agg(id)) FROM d GROUP BY lease)
				  SELECT string_agg(payload::text, ' ' ORDER BY id)
				  FROM d, a});

			$came .= " $out" if $out =~ /^\d/;
			return (split ' ', $came) >= 8;
		});
	waitpid $pid, 0;
	is($?, 0, 'consumer: pg_restore');
	is(join(' ', sort split ' ', $came),
		$all, 'consumer: what was not acked comes once');
	$consumer->quit;
}
goes_on('consumer');

# a dump without secrets: each segment gets a new one, and the log says so
command_ok(
	[
		'pg_dump', '--format=custom', "--file=$dump", '--host',
		$old->host, '--port', $old->port,
		'--exclude-table=message_bus.secret_*', 'postgres'
	],
	'pg_dump without secrets');
restore('bare');
settled('bare');
is(claimed('bare', '10 seconds'), $all, 'bare: what was not acked comes');
is( $new->safe_psql(
		'bare', q{SELECT count(*) FROM pg_class WHERE relrowsecurity
		  AND relacl IS NULL AND relname ~ '^secret_(160|192|224)$'}),
	3, 'bare: with secrets that are nobody\'s');
is(scalar(grep { my $s = $_; grep { $s eq $_ } split "\n", $secrets }
		split "\n", secrets($new, 'bare')), 0, 'bare: new ones');
is(scalar(() = slurp_file($new->logfile) =~
		/segment (?:160|192|224) of message_bus was restored without its secret/g),
	3, 'bare: and the log says so');
goes_on('bare');

$old->stop;
$new->stop;
done_testing();
