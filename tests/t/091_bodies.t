# tests/t/091_bodies.t
#
# Large messages over time: what the log and the scrubber say of a body that is
# damaged, or that has gone with its message; a body that stays for its dead
# letter; a crash, and a dump.

use strict;
use warnings;

use MessageBus::Log;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('bodies',
	conf => "message_bus.log = on\nmessage_bus.log_interval = 10ms\n"
	  . "message_bus.worker_interval = 50ms\nmessage_bus.scrub_rate = 0\n"
	  . "message_bus.own_body_min = 2MB\nautovacuum = off\n"
	  . "message_bus.segment_interval = 0\n");
my ($shared, $own) = (1_500_000, 3_000_000);

create_bus($node);
query(q{
	SELECT message_bus.create_channel('c', ttl => '2 hours', compression => 'none');
	SELECT message_bus.create_channel('dead', ttl => '3 hours');
	SELECT message_bus.create_channel('work', ttl => '2 hours', compression => 'none', max_attempts => 1, dead_letter => 'dead');
	SELECT message_bus.create_subscription('work', 'default');
	CREATE FUNCTION noise(seed int, size int) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
		SELECT substr(string_agg(sha512((seed || ' ' || i)::bytea), '' ORDER BY i), 1, size) FROM generate_series(0, size / 64) AS i $$});

# ---- damage
my %id = (
	sound => publish('c', 1, $shared), 'sound own' => publish('c', 2, $own),
	part => publish('c', 3, $own), alike => publish('c', 4, $shared),
	chunk => publish('c', 5, $own), lost => publish('c', 6, $shared));
log_has_all($node, 'bodies that are whole');
is(query(q{SELECT messages, bytes, bad FROM message_bus.scrub('c')}), join('|', 6, 3 * $shared + 3 * $own, 0), 'the scrubber reads all');
is( query('SELECT count(DISTINCT body >> 20) FILTER (WHERE own), count(DISTINCT body >> 20) FILTER (WHERE NOT own) FROM message_bus.message JOIN message_bus.body_store ON store_no = body >> 20'),
	'3|1', 'some have stores of their own');

my $flip = q{set_byte(bytes, 9, get_byte(bytes, 9) # 1)};
change('part', "UPDATE %s SET bytes = $flip WHERE %s AND n = 11");
change('alike', "UPDATE %s SET bytes = $flip, sha256 = sha256($flip) WHERE %s AND n = 2");
change('lost', 'DELETE FROM %s WHERE %s AND n = 5');
my $toast = query("SELECT reltoastrelid::regclass FROM pg_class WHERE oid = '" . table('chunk') . "'::regclass");
my $toast_file = $node->data_dir . '/' . query("SELECT pg_relation_filepath('$toast')");
my $chunk = pack 'H*', query("SELECT encode(chunk_data, 'hex') FROM $toast ORDER BY chunk_id, chunk_seq OFFSET 1000 LIMIT 1");
$node->stop;
overwrite($toast_file, $chunk, -8, pack('l', 77777));
$node->start;
bus_ready($node);
is( log_faults($node),
	join("\n", map { "message $_ payload" } sort @id{qw(part alike chunk lost)}),
	'verification finds each, and no other');
# a number that is another's: no range of it is given
is($node->safe_psql('postgres', "BEGIN; UPDATE message_bus.message SET body = (SELECT body FROM message_bus.message WHERE id = $id{alike}) WHERE id = $id{sound};
		SELECT octet_length(message_bus.get_bytes($id{alike}, 0, 10)); ROLLBACK"), 10, 'a range of a body by its own message');
is(sqlstate("BEGIN; UPDATE message_bus.message SET body = (SELECT body FROM message_bus.message WHERE id = $id{alike}) WHERE id = $id{sound};
		SELECT message_bus.get_bytes($id{sound}, 0, 10)"), 'XX001', 'not by another');

is(sqlstate("SELECT message_bus.get_bytes($id{part}, 2883574, 10)"), '', 'a part before one that is damaged');
is(sqlstate("SELECT message_bus.get_bytes($id{part}, 2883584, 10)"), 'XX001', 'a part that is damaged');
is(sqlstate("SELECT message_bus.get_bytes($id{alike}, 524288, 10)"), '', 'ranges are compared with their parts');
is(sqlstate("SELECT message_bus.get_bytes($id{alike})"), 'XX001', 'the whole with the message');
like(sqlstate("SELECT message_bus.get_bytes($id{chunk})"), qr/^XX00[01]$/, 'a part that cannot be read');

# what readers have found is looked at whatever the rate
until_query('three are in quarantine', 'SELECT count(*) = 3 FROM message_bus.quarantined');
is(query('SELECT string_agg(concat_ws(\' \', kind, substr(detail, 1, 8)), \', \' ORDER BY message_id) FROM message_bus.quarantined'),
	'checksum part 11 , checksum its body, unreadable unexpect', 'with what is damaged of them');
# the other in slices, each a part of a body, none of which is read twice
setting('scrub_rate', '8MB');
until_query('the scrubber was everywhere', 'SELECT cycle >= 1 AND ended_at IS NOT NULL FROM message_bus.scrub_status');
is(query(qq{SELECT messages, bytes < 4 * $shared + 4 * $own FROM message_bus.scrub_status}), query('SELECT count(*) - 1 FROM message_bus.messages') . '|t', 'once, but for the one that is unreadable');
is(query("SELECT count(*) FROM message_bus.quarantined WHERE message_id = $id{lost}"), 1, 'and has found the fourth');
setting('scrub_rate', '0');
is(query(q{SELECT count(*) FROM message_bus.claim('c', batch => 10)}), 2, 'what is in quarantine is not delivered');

# ---- what goes with its message is no damage
my $gone = publish('c', 7, $own);
my $store = query("SELECT body >> 20 FROM message_bus.message WHERE id = $gone");
my $faults = log_faults($node);
query("SELECT message_bus.record_event($gone, 'deleted', clock_timestamp())");
until_query('the store of one that was deleted has gone', "SELECT to_regclass('message_bus.part_$store') IS NULL");
is(query("SELECT count(*) FROM message_bus.message WHERE id = $gone"), 1, 'its row is there');
is(query("SELECT message_bus.scrub_message($gone)"), 'sound', 'and sound');
is(log_faults($node), $faults, 'verification finds no more than before');
is(query("SELECT message_bus.get_bytes($gone, 0, 1) IS NULL"), 't', 'it is not there');
# one that a transaction still sees
my $late = publish('c', 8, $own);
$store = query("SELECT body >> 20 FROM message_bus.message WHERE id = $late");
my $session = $node->background_psql('postgres');
is($session->query_safe("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT size FROM message_bus.messages WHERE id = $late"), $own, 'a transaction sees a message');
query("SELECT message_bus.record_event($late, 'deleted', clock_timestamp())");
until_query('it is deleted, and its store gone', "SELECT to_regclass('message_bus.part_$store') IS NULL");
is($session->query_safe("SELECT message_bus.get_bytes($late, 0, 1) IS NULL, message_bus.body_json($late) IS NULL"), 't|t', 'not there for it either');
$session->quit;
query(q{SELECT message_bus.create_channel('short', ttl => '2 seconds')});
my $short = publish('short', 9, $own);
$store = query("SELECT body >> 20 FROM message_bus.message WHERE id = $short");
until_query('one that has expired goes', "SELECT to_regclass('message_bus.part_$store') IS NULL");
is(query('SELECT count(*) FROM message_bus.quarantined'), 4, 'nothing of that is in quarantine');

# ---- a dead letter keeps the body
my $dies = publish('work', 10, $own);
$store = query("SELECT body >> 20 FROM message_bus.message WHERE id = $dies");
is(query(q{SELECT message_bus.nack(lease) FROM message_bus.claim('work')}), 1, 'a message dies');
my $letter = query(q{SELECT id FROM message_bus.peek('dead')});
query("SELECT message_bus.record_event($dies, 'deleted', clock_timestamp())");
query(q{SELECT message_bus.drop_channel('work')});
my $passes = query('SELECT passes FROM message_bus.worker_status');
until_query('the worker looks at stores', "SELECT passes > $passes + 3 FROM message_bus.worker_status");
is(query("SELECT message_bus.get_bytes($letter) = noise(10, $own)"), 't', 'its letter has the bytes');

# ---- what counts for a batch
query(q{SELECT message_bus.create_channel('huge')});
my ($first) = map { query(q{SELECT message_bus.publish('huge', '1')}) } 1 .. 2;
query("UPDATE message_bus.message SET size = 3221225472 WHERE id > $first AND channel_id = (SELECT channel_id FROM message_bus.message WHERE id = $first)");
is(query(q{SELECT string_agg(id::text, ' ') FROM message_bus.claim('huge', batch => 10, max_bytes => 1000000)}), $first, 'one of 3 GiB is too large for a batch');
query(q{SELECT message_bus.drop_channel('huge')});

# ---- what turned out to need no store of its own
my $upload = query(q{SELECT message_bus.upload_begin('c')});
query("SELECT message_bus.upload_append($upload, 0, noise(14, $shared))");
my $moved = query("SELECT id FROM message_bus.upload_commit($upload)");
$store = query("SELECT body >> 20 FROM message_bus.message WHERE id = $moved");
isnt($store, $upload >> 20, 'it is in another');
is(query("SELECT count(*) FILTER (WHERE state IS NULL), count(*) FROM message_bus.part_$store WHERE body = (SELECT body FROM message_bus.message WHERE id = $moved)"), '0|6', 'each part with the state of the hash');

# ---- a part whose row leads out of itself
my $torn = publish('c', 13, $own);
my $torn_store = query("SELECT body >> 20 FROM message_bus.message WHERE id = $torn");
my $torn_sum = pack 'H*', query("SELECT encode(sha256, 'hex') FROM message_bus.part_$torn_store WHERE n = 3");
my $torn_file = $node->data_dir . '/' . query("SELECT pg_relation_filepath('message_bus.part_$torn_store')");

# ---- a crash
my $kept = publish('c', 11, $own);
query('CHECKPOINT');
$node->stop('immediate');
overwrite($torn_file, $torn_sum, -1, pack('L', 0x7ffffffc));    # the length of its checksum: 512 MiB
$node->start;
bus_ready($node);
is(sqlstate("SELECT message_bus.get_bytes($torn, 0, 10)"), '', 'a part beside one whose row is damaged');
is(sqlstate("SELECT message_bus.get_bytes($torn, 786432, 10)"), 'XX001', 'one whose row is damaged takes nobody with it');
is(query("SELECT message_bus.scrub_message($torn)"), 'checksum', 'nor the scrubber');
query("SELECT message_bus.record_event($torn, 'deleted', clock_timestamp())");
until_query('it has gone', "SELECT to_regclass('message_bus.part_$torn_store') IS NULL");
is(query("SELECT bool_and(message_bus.get_bytes(id) = noise(n, size)) FROM (VALUES ($letter, 10, $own), ($kept, 11, $own), ($id{sound}, 1, $shared)) AS t (id, n, size)"),
	't', 'all are there after a crash');
is(query("SELECT message_bus.get_bytes(message_bus.publish_bytes('c', noise(12, $shared))) = noise(12, $shared)"), 't', 'and others can be published');

# ---- a dump, which cannot read what is damaged
$store = query("SELECT body >> 20 FROM message_bus.message WHERE id = $id{chunk}");
query("SELECT message_bus.record_event($id{chunk}, 'deleted', clock_timestamp())");
until_query('that has gone', "SELECT to_regclass('message_bus.part_$store') IS NULL");
my $dump = $node->basedir . '/dump';
my $new = bus_node('restored', databases => ['other'], conf => "message_bus.worker_interval = 50ms\n");
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('postgres') ], 'it is dumped');
$new->safe_psql('postgres', 'CREATE DATABASE other');
$new->command_ok([ 'pg_restore', '--exit-on-error', '-d', $new->connstr('other'), $dump ], 'and restored');
bus_ready($new, 'other');
wait_for('the messages', sub { $new->safe_psql('other', "SELECT count(*) FROM message_bus.messages WHERE id IN ($letter, $kept, $id{sound})") == 3 });
is($new->safe_psql('other', "SELECT bool_and(message_bus.get_bytes(id) = noise(n, size)) FROM (VALUES ($letter, 10, $own), ($kept, 11, $own), ($id{sound}, 1, $shared)) AS t (id, n, size)"),
	't', 'with all their bytes');

done_testing();

sub query { return $node->safe_psql('postgres', $_[0]) }

# publish publishes noise of a size, and returns the message's id.
sub publish
{
	my ($channel, $seed, $size) = @_;

	return query("SELECT message_bus.publish_bytes('$channel', noise($seed, $size))");
}

# table returns the table that has the parts of a message.
sub table
{
	return query("SELECT 'message_bus.part_' || (body >> 20) FROM message_bus.message WHERE id = $id{$_[0]}");
}

# change changes parts of a message: %s is their table, then which they are.
sub change
{
	my ($name, $change) = @_;

	query(sprintf $change, table($name), "body = (SELECT body FROM message_bus.message WHERE id = $id{$name})");
	return;
}

# overwrite changes bytes of a file, so far from where some others are.
sub overwrite
{
	my ($file, $bytes, $offset, $new) = @_;
	my $all = slurp_file($file);
	my $at = index $all, $bytes;

	die "not found in $file\n" if $at < 0;
	open my $handle, '+<:raw', $file or die "$file: $!\n";
	seek $handle, $at + $offset, 0;
	print $handle $new;
	close $handle or die "$file: $!\n";
	return;
}

sub setting
{
	my ($name, $value) = @_;

	query("ALTER SYSTEM SET message_bus.$name = '$value'");
	query('SELECT pg_reload_conf()');
	return;
}

sub until_query
{
	my ($what, $question) = @_;

	wait_for($what, sub { query($question) eq 't' });
	return;
}

# sqlstate returns how a statement fails; nothing if it does not.
sub sqlstate
{
	my ($statement) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$statement");

	return $err =~ /ERROR:\s+(\w{5}):/ ? $1 : '';
}
