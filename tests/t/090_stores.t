# tests/t/090_stores.t
#
# Stores of large bodies: opened when somebody wants one, closed when they are
# full, dropped when nothing in them is wanted, kept while a dead letter, a
# reader or an open transaction needs them; over kills of the worker and the
# server, and a dump.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $mb = 1024 * 1024;
my $node = bus_node('stores',
	conf => "message_bus.worker_interval = 100ms\n"
	  . "message_bus.segment_interval = 0\n"
	  . "message_bus.scrub_rate = 0\n"	# nor are bodies moved
	  . "message_bus.own_body_min = 4MB\n"
	  . "message_bus.store_max_size = 8MB\n");
my $noise = q{
	CREATE FUNCTION public.noise(bytes int) RETURNS bytea LANGUAGE sql AS $$
		SELECT string_agg(sha256((i || ':' || random())::bytea), '')
			|| substr('\x000102030405060708090a0b0c0d0e0f10111213141516171819'::bytea, 1, bytes % 32)
		FROM generate_series(1, bytes / 32) i $$};
my $bodies = q{
	SELECT id, b.md5 = md5(message_bus.get_bytes(id))
	FROM public.bodies b WHERE keep ORDER BY id};

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# publish publishes some noise, and remembers what it was; returns the id.
sub publish
{
	my ($channel, $bytes, $keep) = @_;

	return sql(
		"WITH noise AS MATERIALIZED (SELECT public.noise($bytes) AS b), "
		  . "sent AS MATERIALIZED (SELECT message_bus.publish_bytes('$channel', b, "
		  . "'application/octet-stream') AS id, md5(b) AS md5 FROM noise) "
		  . "INSERT INTO public.bodies SELECT id, md5, "
		  . ($keep ? 'true' : 'false')
		  . ' FROM sent RETURNING id');
}

# store_of returns the store of a message's body.
sub store_of
{
	my ($id) = @_;

	return sql("SELECT body >> 20 FROM message_bus.message WHERE id = $id");
}

# store returns a column of a store's row, or '' if there is none.
sub store
{
	my ($number, $column) = @_;

	return sql(
		"SELECT $column FROM message_bus.body_store WHERE store_no = $number");
}

# gone tells whether a store's row and table are.
sub gone
{
	my ($number) = @_;

	return sql("SELECT to_regclass('message_bus.part_$number') IS NULL "
		  . 'AND NOT EXISTS (SELECT FROM message_bus.body_store '
		  . "WHERE store_no = $number)") eq 't';
}

# matched tells whether each store has a table, and each table a row.
sub matched
{
	my ($on) = @_;

	return $on->safe_psql('postgres', q{
		SELECT count(*) FROM
			(SELECT 'part_' || store_no AS name FROM message_bus.body_store) s
			FULL JOIN (SELECT relname AS name FROM pg_class
				WHERE relname ~ '^part_[0-9]+$') t USING (name)
		WHERE s.name IS NULL OR t.name IS NULL}) eq '0';
}

# kept tells whether each body is kept as long as its message, by its store or by
# a row of its own.
sub kept
{
	return sql(q{
		SELECT count(*) FROM message_bus.messages m
		JOIN message_bus.message USING (id)
		JOIN message_bus.body_store s ON s.store_no = body >> 20
		WHERE (s.own OR s.expires_at < m.expires_at) AND NOT EXISTS
			(SELECT FROM message_bus.body_hold h WHERE h.message_id = m.id
				AND h.store_no = s.store_no AND h.until >= m.expires_at)}) eq '0';
}

create_bus($node);
sql($noise);
sql(q{
	CREATE TABLE public.bodies (id bigint, md5 text, keep boolean);
	SELECT message_bus.create_channel('short', ttl => '4 seconds');
	SELECT message_bus.create_channel('long', ttl => '50 minutes');
	SELECT message_bus.create_channel('dies', ttl => '4 seconds',
		max_attempts => 1, dead_letter => 'long');
	SELECT message_bus.create_subscription('dies', 's')});

# ----------
# Shared
# ----------

is(sql('SELECT count(*) FROM message_bus.body_store'),
	0, 'nothing is made before somebody wants it');

my $first = publish('long', 2 * $mb, 1);
my $shared = store_of($first);
my $last = publish('long', 3 * $mb + 5, 1);

is(store($shared, 'own::text || (closed_at IS NULL)'),
	'falsetrue', 'a body goes to a shared store that stays open');
is(store_of($last), $shared, 'the next one to the same');
is( sql(qq{
	SELECT count(*), sum(length(bytes)), min(size), bool_and(sha256 = sha256(bytes)),
		count(state) FROM message_bus.part_$shared}),
	'21|5242885|5|t|21',
	'parts have a quarter of a megabyte, a hash and a state');
is( sql(qq{SELECT count(*) FROM message_bus.body_hold}),
	0, 'what expires in time is held by the store alone');
cmp_ok(
	sql(qq{SELECT extract(epoch FROM (SELECT expires_at FROM message_bus.body_store
			WHERE store_no = $shared) - (SELECT max(expires_at)
			FROM message_bus.messages WHERE channel = 'long'))}),
	'>', 0, 'its row promises a time behind the last expiry');

sql_fails($node, 'postgres',
	"COPY message_bus.part_$shared FROM '/dev/null'",
	'55000', qr/in use/, 'nobody copies into a store that is in use');

my $last_in = publish('long', 3 * $mb + 5, 1);
wait_for('a full store to be closed',
	sub { store($shared, 'closed_at IS NOT NULL') eq 't' });
ok(kept(), 'then its row has the last expiry');
cmp_ok(
	sql(qq{SELECT extract(epoch FROM (SELECT expires_at FROM message_bus.body_store
			WHERE store_no = $shared) - (SELECT max(expires_at)
			FROM message_bus.messages WHERE channel = 'long'))}),
	'<', 60, 'and no more');
isnt(store_of(publish('long', 2 * $mb, 1)),
	$shared, 'the next body goes to another store');
unlike(sql($bodies), qr/f/, 'all of it is read again');

sql(q{SELECT message_bus.create_channel('empty', ttl => '50 minutes',
		compression => 'lz4');
	SELECT message_bus.publish_bytes('empty', decode(repeat('00', 3000000), 'hex'),
		'application/octet-stream') FROM generate_series(1, 6)});
is( sql(q{SELECT count(DISTINCT body >> 20) FROM message_bus.message
		JOIN message_bus.channel USING (channel_id) WHERE name = 'empty'}),
	1, 'a store is full when it has so much on the disk');

# ----------
# Expired, held, let go
# ----------

my $dies = publish('dies', 2 * $mb);
my $dying = store_of($dies);

publish('short', 2 * $mb) for 1 .. 4;
is(store_of($dies), $dying, 'channels of a series share a store');
sql(q{SELECT message_bus.nack(lease) FROM message_bus.claim('dies', 's')});

my $letter = sql(
	q{SELECT max(dead_letter_id) FROM message_bus.failure
		WHERE dead_letter_id IS NOT NULL});

like($letter, qr/^\d+$/, 'a message dies');
is(store_of($letter), $dying, 'its letter refers to the same body');
is( sql("SELECT count(*) FROM message_bus.body_hold WHERE store_no = $dying "
		  . "AND message_id = $letter"),
	1, 'and holds it');

my $other = publish('short', 3 * $mb);

publish('short', 3 * $mb) for 1 .. 2;
isnt(store_of($other), $dying, 'a full store is followed');
$other = store_of($other);

# a reader keeps a store, and what he reads
my $reader = $node->background_psql('postgres');

$reader->query_safe("BEGIN; SELECT count(*) FROM message_bus.part_$other");
wait_for('the store to expire',
	sub { store($other, 'expires_at < message_bus.clock()') eq 't' });
sql('SELECT message_bus.expire()');
ok(!gone($other), 'a store that somebody reads stays');
$reader->query_safe('COMMIT');
$reader->quit;
wait_for('an expired store to be dropped', sub { gone($other) });
sql('SELECT message_bus.expire()');
ok(!gone($dying), 'a store that a dead letter holds stays');
is( sql(qq{SELECT md5(message_bus.get_bytes($letter)) = md5
		FROM public.bodies WHERE id = $dies}),
	't', 'and its body is whole');
sql("SELECT message_bus.record_event($letter, 'deleted', now())");
wait_for('a store whose holder was deleted to be dropped',
	sub { gone($dying) });

# ----------
# Moved
# ----------

my @letters;
my @moved;

# of two that die one is moved twice
for (1 .. 2)
{
	push @moved, publish('dies', 1_100_000);
	sql(q{SELECT message_bus.nack(lease) FROM message_bus.claim('dies', 's')});
	push @letters,
	  sql(q{SELECT max(dead_letter_id) FROM message_bus.failure
		WHERE dead_letter_id IS NOT NULL});
}
my $old = store_of($moved[0]);

publish('short', 3 * $mb) for 1 .. 3;
is(store_of($letters[1]), $old, 'two letters are in one store');
$node->append_conf('postgresql.conf', 'message_bus.scrub_rate = 100MB');
$node->reload;
wait_for('a store of which little is held to be dropped', sub { gone($old) });
is( sql(qq{SELECT bool_and(md5(message_bus.get_bytes(l)) = b.md5)
		FROM unnest(ARRAY[$letters[0], $letters[1]], ARRAY[$moved[0], $moved[1]]) AS t (l, m)
		JOIN public.bodies b ON b.id = m}),
	't', 'what was held was moved');

my $to = sql(q{SELECT DISTINCT to_body >> 20 FROM message_bus.body_moved});

is( sql("SELECT count(*) FROM message_bus.body_hold WHERE store_no = $to "
		  . "AND message_id IN ($letters[0], $letters[1])"),
	2, 'to a store that is held');

# as if that were over, too, with all that it had of its own
sql(qq{UPDATE public.bodies SET keep = false WHERE id IN
		(SELECT id FROM message_bus.message WHERE body >> 20 = $to);
	UPDATE message_bus.body_store SET closed_at = now(), expires_at = now()
	WHERE store_no = $to});
sql("SELECT message_bus.record_event($letters[1], 'deleted', now())");
$node->restart;
bus_ready($node);
wait_for('that store to be dropped', sub { gone($to) });
is( sql(qq{SELECT md5(message_bus.get_bytes($letters[0])) = md5
		FROM public.bodies WHERE id = $moved[0]}),
	't', 'and again');
is(sql(q{SELECT count(*) FROM message_bus.body_moved WHERE to_body >> 20 NOT IN
		(SELECT store_no FROM message_bus.body_store)}),
	0, 'nothing is said to be where nothing is');

# ----------
# One body each
# ----------

my $own_id = publish('long', 5 * $mb, 1);
my $own = store_of($own_id);

is(store($own, 'own'), 't', 'a larger body has a store of its own');
is( sql("SELECT message_id FROM message_bus.body_hold WHERE store_no = $own"),
	$own_id, 'that its message holds');
cmp_ok(sql('SELECT count(*) FROM message_bus.body_store WHERE own'),
	'>', 1, 'others are ready');

my $deleted = publish('long', 5 * $mb);
my $deleted_store = store_of($deleted);

sql("SELECT message_bus.record_event($deleted, 'deleted', now())");
wait_for('the store of a deleted message to be dropped',
	sub { gone($deleted_store) });

my $rolled_back = $node->background_psql('postgres');

$rolled_back->query_safe(
	q{BEGIN; SELECT message_bus.publish_bytes('long', public.noise(5000000),
		'application/octet-stream')});
my $open = $rolled_back->query_safe(
	q{SELECT max(store_no) FROM message_bus.body_hold});
sql('SELECT message_bus.expire()');
ok(!gone($open), 'a store that a transaction writes to stays');
$rolled_back->query_safe('ROLLBACK');
$rolled_back->quit;
wait_for('what was rolled back to be dropped', sub { gone($open) });
ok(!gone($own), 'a store whose message lives stays');

my $numbers = sql('SELECT next_store FROM message_bus.server_state');

for (1 .. 3)
{
	sql(q{BEGIN; SELECT message_bus.publish_bytes('long', public.noise(5000000),
			'application/octet-stream'); ROLLBACK});
	wait_for('it to be dropped',
		sub { sql(q{SELECT count(*) FROM message_bus.body_store WHERE own}) <= 5 });
}
is(sql('SELECT next_store FROM message_bus.server_state'),
	$numbers, 'numbers of stores that have gone are used again');
is( sql(q{SELECT count(*) - count(DISTINCT body) FROM message_bus.message
		WHERE body IS NOT NULL}),
	0, 'those of bodies are not');

# what is begun and rolled back takes nothing, own or shared
my $stores = sql('SELECT count(*) FROM message_bus.body_store');

sql(q{SELECT message_bus.publish_bytes('long', public.noise(1100000),
		'application/octet-stream')});
my $taking = sql(q{SELECT max(store_no) FROM message_bus.body_store
	WHERE NOT own AND closed_at IS NULL});

foreach my $size (5_000_000, 2_000_000)
{
	my $begin = "SELECT message_bus.upload_begin('long', "
	  . "'application/octet-stream', $size);\n";

	sql("BEGIN;\n$begin ROLLBACK;\n" x 100
		  . "BEGIN;\n" . "SAVEPOINT a;\n$begin ROLLBACK TO a;\n" x 100
		  . 'COMMIT');
	sql_fails($node, 'postgres', "BEGIN; $begin PREPARE TRANSACTION 'a'",
		'0A000', qr/large bodies/, 'nor is it prepared');
}
cmp_ok(sql('SELECT count(*) FROM message_bus.body_store'),
	'<=', $stores + 6, 'who begins and rolls back makes few stores');
is( sql("SELECT closed_at IS NULL FROM message_bus.body_store "
		  . "WHERE store_no = $taking"),
	't', 'and fills none');
is( sql(q{SELECT count(*) - count(DISTINCT body) FROM message_bus.message
		WHERE body IS NOT NULL}),
	0, 'no number of a body comes again');

# what expires becomes a dead letter before its store goes
sql(q{SELECT message_bus.create_channel('late', ttl => '3 seconds',
		dead_letter => 'long', dead_letter_expired => true);
	SELECT message_bus.create_subscription('late', 's')});
my $late = publish('late', 5 * $mb);
my $late_letter;

wait_for('it to be a dead letter',
	sub
	{
		$late_letter = sql(
			"SELECT max(dead_letter_id) FROM message_bus.failure WHERE message_id = $late"
		);
		return $late_letter ne '';
	});
wait_for('it to expire',
	sub { sql("SELECT count(*) FROM message_bus.messages WHERE id = $late") eq '0' });
sql('SELECT message_bus.expire()');
is( sql(qq{SELECT md5(message_bus.get_bytes($late_letter)) = md5
		FROM public.bodies WHERE id = $late}),
	't', 'and its body is kept');

$node->append_conf('postgresql.conf', 'message_bus.max_own_stores = 0');
$node->reload;
wait_for('the ready ones to be used up',
	sub
	{
		my ($status, $out, $err) = $node->psql('postgres',
			q{BEGIN; SELECT message_bus.publish_bytes('long',
				public.noise(5000000), 'application/octet-stream'); ROLLBACK});
		return $status != 0;
	});
sql_fails($node, 'postgres',
	q{SELECT message_bus.publish_bytes('long', public.noise(5000000),
		'application/octet-stream')},
	'53400', qr/too many large bodies/, 'there are so many and no more');
$node->append_conf('postgresql.conf', 'message_bus.max_own_stores = 100');
$node->reload;

# ----------
# Kills
# ----------

# churn_start has somebody publish, and roll back some, until the server is
# killed.
sub churn_start
{
	my $file = $node->basedir . '/churn.sql';
	my $sql = '';

	foreach my $n (1 .. 200)
	{
		my $bytes = $n % 3 == 0 ? 5 * $mb : $mb + $n;
		my $end = $n % 4 == 0 ? 'ROLLBACK' : 'COMMIT';

		$sql .= "BEGIN; INSERT INTO public.bodies SELECT message_bus.publish_bytes("
		  . "'long', b, 'application/octet-stream'), md5(b), true "
		  . "FROM public.noise($bytes) b; $end;\n";
	}
	append_to_file($file, $sql) if !-e $file;
	return IPC::Run::start(
		[ 'psql', '-X', '-q', '-h', $node->host, '-p', $node->port, '-f',
			$file, 'postgres' ], '>', '/dev/null', '2>', '/dev/null');
}

sub killed_ok
{
	my ($what) = @_;

	unlike(sql($bodies), qr/f/, "$what: what was committed is whole");
	is(sql(q{SELECT count(*) FROM public.bodies b WHERE keep
			AND NOT EXISTS (SELECT FROM message_bus.messages m WHERE m.id = b.id)}),
		0, "$what: and there");
	wait_for("$what: stores to be closed",
		sub { sql('SELECT count(*) FROM message_bus.body_store WHERE NOT own '
			  . 'AND closed_at IS NULL') eq '0' });
	ok(kept(), "$what: and nothing is kept for too short a time");
	wait_for("$what: left stores to be dropped",
		sub { sql(q{SELECT count(*) FROM message_bus.body_store s WHERE own
			AND NOT EXISTS (SELECT FROM message_bus.body_hold h
				WHERE h.store_no = s.store_no)}) eq '0' });
	ok(matched($node), "$what: stores have their tables");
}

my $count = sql('SELECT count(*) FROM public.bodies');
my $churn = churn_start();

wait_for('some bodies',
	sub { sql('SELECT count(*) FROM public.bodies') >= $count + 4 });
kill 'KILL', worker_pid($node, 'postgres');
$churn->finish;
wait_for('the server to be back',
	sub { eval { $node->psql('postgres', 'SELECT 1') } eq '0' });
wait_for('the worker to be back', sub { eval { worker_pid($node, 'postgres') } });
killed_ok('worker');
my $next = sql('SELECT next_store FROM message_bus.server_state');

$count = sql('SELECT count(*) FROM public.bodies');
$churn = churn_start();
wait_for('more bodies',
	sub { sql('SELECT count(*) FROM public.bodies') >= $count + 4 });
cmp_ok(store_of(publish('long', 2 * $mb, 1)),
	'>=', $next, 'stores are numbered above all that there were');

# a promotion looks so
sql('UPDATE message_bus.server_state SET timeline = timeline + 7');
$node->stop('immediate');
$churn->finish;
$node->start;
bus_ready($node);
killed_ok('server');
cmp_ok(sql('SELECT next_store FROM message_bus.server_state'),
	'>', $next + 256 * 32, 'on another timeline numbers are left out');

# ----------
# Dump and restore
# ----------

my $new = bus_node('restored',
	conf => "message_bus.worker_interval = 100ms\n"
	  . "message_bus.own_body_min = 4MB\n");
my $dump = $node->basedir . '/dump';

publish('long', 2 * $mb, 1);
command_ok(
	[
		'pg_dump', '--format=custom', "--file=$dump", '--host',
		$node->host, '--port', $node->port, 'postgres'
	],
	'pg_dump');
$new->safe_psql('postgres',
	'ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC');
command_ok(
	[
		'pg_restore', '--exit-on-error', '--host', $new->host, '--port',
		$new->port, '--dbname=postgres', $dump
	],
	'pg_restore');
wait_for('what was restored to be taken in',
	sub
	{
		$new->safe_psql('postgres',
			q{SELECT count(*) FROM public.bodies b WHERE keep AND NOT EXISTS
				(SELECT FROM message_bus.messages m WHERE m.id = b.id)}) eq '0';
	});
unlike($new->safe_psql('postgres', $bodies),
	qr/f/, 'restored bodies are whole');
wait_for('the stores to be taken in',
	sub
	{
		$new->safe_psql('postgres',
			q{SELECT count(*) FROM pg_class, aclexplode(relacl) a
				WHERE relname ~ '^part_' AND a.grantee <> relowner}) eq '0';
	});
ok(matched($new), 'stores have their tables');
cmp_ok(
	$new->safe_psql('postgres', q{
		SELECT message_bus.publish_bytes('long', public.noise(2097152),
			'application/octet-stream') AS id \gset
		SELECT body >> 20 FROM message_bus.message WHERE id = :id}),
	'>',
	$new->safe_psql('postgres', q{
		SELECT max(body >> 20) FROM message_bus.message
		WHERE id <> (SELECT max(id) FROM message_bus.message)}),
	'stores are numbered above what was restored');
$new->safe_psql('postgres', 'DROP EXTENSION message_bus');
is( $new->safe_psql('postgres',
		q{SELECT count(*) FROM pg_class WHERE relname ~ '^part_'}),
	0, 'the extension takes its stores along');

$node->stop;
$new->stop;
done_testing();
