# tests/t/084_log_tampering.t
#
# What somebody changes behind the bus's back is found by audit_verify(), and
# named, and nothing else is; what a witness has signed also if all of the log
# is rewritten.

use strict;
use warnings;

use Fcntl qw(SEEK_SET);
use IPC::Run;
use MIME::Base64;
use MessageBus::Log;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('log_tampering',
	conf => "message_bus.log = on\nmessage_bus.log_interval = 10ms\n"
	  . "message_bus.segment_interval = 0\nautovacuum = off\n");

sub query { return $node->safe_psql('postgres', $_[0]) }

plan skip_all => 'there is no Go with golang.org/x/mod'
  if !log_judge_built() || !log_judge_built('log_witness');

create_bus($node);
query(q{
	SELECT message_bus.create_channel('plain', compression => 'none', backoff => '0', backoff_max => '0');
	SELECT message_bus.create_channel('packed', compression => 'zstd');
	SELECT message_bus.create_channel('squeezed', compression => 'lz4');
	SELECT message_bus.create_channel('short', ttl => '1 second')});

# ----------
# A witness, whose first look is at a log that is short
# ----------

my ($to_witness, $from_witness) = ('', '');
my $witness = IPC::Run::start(["$ENV{TESTDATADIR}/log_witness"],
	'<', \$to_witness, '>', \$from_witness);

# ask returns what the witness answers.
sub ask
{
	$from_witness = '';
	$to_witness = "@_\n";
	$witness->pump until $from_witness =~ /\n\z/;
	return $from_witness =~ s/\n\z//r;
}

# checkpoint returns the newest one's size, and its note in base64.
sub checkpoint
{
	return split /\|/, query('SELECT (SELECT max(size) FROM message_bus.log_checkpoint), '
		  . of_base64('message_bus.audit_checkpoint()::bytea'));
}

# proof returns that of consistency, in base64.
sub consistency
{
	return query("SELECT string_agg(" . of_base64('h') . ", ' ') FROM message_bus.audit_consistency($_[0], $_[1]) AS h");
}

my $vkey = ask('key', 'witness.example/w1');
query("SELECT message_bus.set_witnesses(ARRAY['$vkey'])");
my $old = $node->background_psql('postgres', on_error_stop => 0);
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
query("SELECT message_bus.publish('plain', '1')");
log_covered($node);
my $key = query('SELECT message_bus.audit_key()');
my ($seen, $note) = checkpoint();
my $line = ask('cosign', $key, $note);
like($line, qr{^\xe2\x80\x94 witness\.example/w1 \S+$}, 'a witness signs');
sql_fails($node, 'postgres', "SELECT message_bus.audit_cosign($seen + 1, '$line')", '22023', qr/not that of a witness/, 'what it signed is no other size');
sql_fails($node, 'postgres', "SELECT message_bus.audit_cosign($seen, '" . ($line =~ s/.(..)$/$1/r) . "')", '22023', qr/not that of a witness/, 'nor is half of it enough');
sql_fails($node, 'postgres', "SELECT message_bus.set_witnesses(ARRAY['$vkey', '$vkey'])", '22023', qr/key 2 has the name/, 'no two have one name');
sql_fails($node, 'postgres', "SELECT message_bus.set_witnesses(ARRAY['" . ($vkey =~ s/\+.{8}/+01234567/r) . "'])", '22023', qr/key 1 is no key/, 'nor a wrong id');
$old->query("SELECT message_bus.audit_cosign($seen, '$line')");
like($old->{stderr}, qr/the checkpoint of size $seen is not there/, 'nor is it taken where the checkpoint is not seen');
$old->quit;
query("SELECT message_bus.audit_cosign($seen, '$line')");
my $first = query("SELECT min(id) FROM message_bus.messages");
is(query("SELECT position('$line' IN message_bus.audit_checkpoint()) > 0"), 't', 'a checkpoint has its line');

# ----------
# What is logged
# ----------

query(q{
	SELECT count(message_bus.publish('plain', to_json('needle ' || i), headers => '{"a": 1}', key => 'k' || i)) FROM generate_series(1, 700) AS i;
	SELECT count(message_bus.publish(c, to_json(c || (SELECT string_agg(md5(g::text), '') FROM generate_series(1, 300) AS g))))
		FROM unnest(ARRAY['plain', 'packed', 'squeezed']) AS c;
	SELECT count(message_bus.publish('short', to_json(i))) FROM generate_series(1, 5) AS i;
	SELECT count(message_bus.ack(lease)) FROM (SELECT DISTINCT lease FROM message_bus.claim('plain', batch => 20)) AS c;
	SELECT message_bus.nack(lease, ARRAY[id], reason => 'no') FROM message_bus.claim('plain', batch => 3);
	SELECT message_bus.record_event(id, 'accessed', clock_timestamp()) FROM message_bus.peek('plain') LIMIT 3});
wait_for('a segment to go', sub { query('SELECT message_bus.expire()'); query("SELECT count(*) FROM message_bus.log_action WHERE kind = 'drop-segment'") > 0 });
# an id between them is given out and not used
query(q{SELECT count(message_bus.publish('plain', to_json('after ' || i))) FROM generate_series(1, 5) AS i;
	BEGIN; SAVEPOINT s; SELECT message_bus.publish('plain', '1'); ROLLBACK TO s; SELECT message_bus.publish('plain', '2'); COMMIT});
log_covered($node);
is(log_faults($node), '', 'nothing is wrong when nothing was changed');
like(query("SELECT message_bus.audit_proof($first)"), qr{\nindex \d+\n.*\n$seen\n.*^\xe2\x80\x94 witness}ms,
	'a proof is of the checkpoint that the witness has cosigned');
unlike(query("SELECT message_bus.audit_proof(max(id)) FROM message_bus.messages"), qr{^\xe2\x80\x94 witness}m,
	'or of the newest, if that one does not cover it');

# ----------
# Tampering
# ----------

# message returns the id of the i-th in the order of the log, in a full tile.
my @id = split /\n/, query("SELECT id FROM message_bus.messages WHERE channel = 'plain' ORDER BY id");
my ($one, $two, $last) = @id[ 10, 20, -1 ];
my $segment = $one >> 24;
my %long = map { split /\|/ } split /\n/, query('SELECT channel, id FROM message_bus.messages WHERE size > 9000');
my ($ack) = query('SELECT no FROM message_bus.ack ORDER BY no LIMIT 1');
my ($failure) = query('SELECT no FROM message_bus.failure ORDER BY no LIMIT 1');
my ($event) = query('SELECT no FROM message_bus.event ORDER BY no LIMIT 1');
my $size = query('SELECT size FROM message_bus.log_state');
my $newest = query('SELECT max(size) FROM message_bus.log_checkpoint');
my $dropped = query("SELECT segment_no FROM message_bus.log_action WHERE kind = 'drop-segment'");
my @checkpoints = split /\n/, query('SELECT size FROM message_bus.log_checkpoint WHERE size > 300 ORDER BY size');
my $table = "message_bus.message_$segment";
cmp_ok($size, '>', 512, 'there are full tiles');

# what a superuser needs to make a tree that fits a row he has changed
query(q{
	CREATE FUNCTION tile_root(hashes bytea) RETURNS bytea LANGUAGE plpgsql AS $$
	BEGIN
		WHILE length(hashes) > 32 LOOP
			hashes := (SELECT string_agg(sha256('\x01'::bytea || substring(hashes FROM 64 * i + 1 FOR 64)), NULL ORDER BY i)
				FROM generate_series(0, length(hashes) / 64 - 1) AS i);
		END LOOP;
		RETURN hashes;
	END $$;
	CREATE FUNCTION tree_fit(message bigint) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		run message_bus.log_run;
		index bigint;
		entry bytea;
	BEGIN
		SELECT * INTO run FROM message_bus.log_run
			WHERE kind = 0 AND segment_no = message >> 24 AND lo <= message ORDER BY lo DESC LIMIT 1;
		index := run.first_index + message - run.lo;
		UPDATE message_bus.log_run SET kind = 1 WHERE first_index = run.first_index;
		entry := message_bus.audit_entry(message);
		UPDATE message_bus.log_run SET kind = 0 WHERE first_index = run.first_index;
		UPDATE message_bus.log_tile SET hashes = overlay(hashes PLACING sha256('\x00'::bytea || entry) FROM (32 * (index % 256) + 1)::int)
			WHERE level = 0 AND n = index / 256;
		UPDATE message_bus.log_tile AS t SET hashes = overlay(t.hashes PLACING
				tile_root((SELECT b.hashes FROM message_bus.log_tile AS b WHERE b.level = 0 AND b.n = index / 256))
				FROM (32 * (index / 256 - t.from_hash) + 1)::int)
			WHERE level = 1 AND index / 256 >= from_hash AND index / 256 < from_hash + length(hashes) / 32;
	END $$});

# what a case changes: a byte of a column, or the columns of a message
sub flip { return "$_[1] = set_byte($_[1], $_[0], get_byte($_[1], $_[0]) # 1)" }
sub message { my ($id, $set) = @_; return 'UPDATE message_bus.message_' . ($id >> 24) . " SET $set WHERE id = $id" }
sub tile { return "UPDATE message_bus.log_tile SET $_[1] WHERE $_[0]" }

# another puts a copy of a row of a message into its table.
sub another
{
	my ($id, $change) = @_;

	return "DO \$\$ DECLARE m $table; BEGIN SELECT * INTO m FROM $table WHERE id = $id; $change; INSERT INTO $table VALUES (m.*); END \$\$";
}

my $new = $last - 1;
my $edge = $size >> 8;
my $channel = query(q{SELECT channel_id FROM message_bus.channel WHERE name = 'packed'});
my @cases = (
	[ 'a byte of a payload', "message $one payload", message($one, flip(3, 'payload')) ],
	[ 'one out of line', "message $long{plain} payload", message($long{plain}, flip(5000, 'payload')) ],
	[ 'one that is compressed', "message $long{packed} payload", message($long{packed}, flip(300, 'payload')) ],
	[ 'one compressed by the server', "message $long{squeezed} payload", message($long{squeezed}, flip(300, 'payload')) ],
	[ 'a payload that is longer', "message $one payload", message($one, q{payload = payload || '\x20'}) ],
	[ 'a payload and its checksum', "message $one changed", message($one, q{payload = '[]', size = 2, sha256 = sha256('[]')}) ],
	[ 'a header', "message $one changed", message($one, q{headers = '{"a": 2}'}) ],
	[ 'a time', "message $one changed", message($one, q{created_at = created_at + interval '1 us'}) ],
	[ 'a message at the edge', "message $last changed", message($last, q{key = 'x'}) ],
	[ 'an ack', "ack $ack changed", "UPDATE message_bus.ack SET at = at + interval '1 us' WHERE no = $ack" ],
	[ 'a failure', "failure $failure changed", "UPDATE message_bus.failure SET reason = 'yes' WHERE no = $failure" ],
	[ 'who has read', "event $event changed", "UPDATE message_bus.event SET role = 'nobody' WHERE no = $event" ],
	[ 'no kind of event', "event $event unreadable", 'ALTER TABLE message_bus.event ALTER kind DROP NOT NULL', "UPDATE message_bus.event SET kind = NULL WHERE no = $event" ],
	[ 'no checksum', "message $one unreadable", 'ALTER TABLE message_bus.message ALTER sha256 DROP NOT NULL', message($one, 'sha256 = NULL') ],
	[ 'a message that is deleted', "message $one removed", "DELETE FROM $table WHERE id = $one" ],
	[ 'an ack that is deleted', "ack $ack removed", "DELETE FROM message_bus.ack WHERE no = $ack" ],
	[ 'a message that is added', "message $new added", another($one, "m.id := $new") ],
	[ 'an ack that is there twice', "ack $ack added", "INSERT INTO message_bus.ack SELECT * FROM message_bus.ack WHERE no = $ack" ],
	[
		'two that are swapped', "message $one changed\nmessage $two changed",
		"UPDATE $table AS m SET payload = o.payload, sha256 = o.sha256, size = o.size, key = o.key"
		  . " FROM $table AS o WHERE m.id IN ($one, $two) AND o.id IN ($one, $two) AND m.id <> o.id"
	],
	[ 'a tile', 'tile 1 tile', tile('level = 0 AND n = 1', q{hashes = (SELECT string_agg(sha256(n::text::bytea), NULL) FROM generate_series(1, 256) AS n)}) ],
	[ 'a tile and a message', 'tile 1 tile', tile('level = 0 AND n = 1', flip(40, 'hashes')), message($id[300], q{key = 'x'}) ],
	[ 'a tile that is gone', 'tile 1 tile', 'DELETE FROM message_bus.log_tile WHERE level = 0 AND n = 1' ],
	[ 'a part of the tile at the edge', "tile $edge tile", tile("level = 0 AND n = $edge AND from_hash = 0", flip(0, 'hashes')) ],
	[ 'a hash above', 'tile 0 tile', tile('level = 1 AND from_hash = 0', flip(0, 'hashes')) ],
	[ 'a message, tiles and the state', join("\n", map { "checkpoint $_ checkpoint" } sort @checkpoints), message($id[300], q{key = 'x'}), "DO \$\$ BEGIN PERFORM tree_fit($id[300]); END \$\$" ],
	[ 'the size', qr/\A(checkpoint \d+ checkpoint\n)*checkpoint $newest checkpoint\nlog state\z/, 'UPDATE message_bus.log_state SET size = 0' ],
	[ 'a size that is never reached', 'log state', 'UPDATE message_bus.log_state SET size = 1::bigint << 60' ],
	[ 'a state that is gone', 'log state', 'DELETE FROM message_bus.log_state' ],
	[ 'a run that is gone', 'run run', "DELETE FROM message_bus.log_run WHERE segment_no = $segment AND kind = 0 AND n > 100" ],
	[ 'a run that is shorter', 'run run', "UPDATE message_bus.log_run SET n = n - 1 WHERE first_index = (SELECT first_index FROM message_bus.log_run WHERE n > 100 AND runs IS NULL LIMIT 1)" ],
	[ 'a root', "checkpoint $newest checkpoint", "UPDATE message_bus.log_checkpoint SET root = sha256(root) WHERE size = $newest" ],
	[ 'a signature', "checkpoint $newest checkpoint", "UPDATE message_bus.log_checkpoint SET signature = overlay(signature PLACING 'AAAA' FROM length(signature) - 20) WHERE size = $newest" ],
	[ 'a witness\' line', "cosignature $seen checkpoint", q{UPDATE message_bus.log_cosignature SET line = overlay(line PLACING 'AAAA' FROM length(line) - 20)} ],
	[ 'what a witness has signed', "cosignature $seen checkpoint", "DELETE FROM message_bus.log_checkpoint WHERE size = $seen" ],
	[ 'a channel', "channel $channel state", "UPDATE message_bus.channel SET ttl = '3 days' WHERE name = 'packed'" ],
	[ 'a channel\'s visibility', "channel $channel state", "UPDATE message_bus.channel SET visibility = 'subject' WHERE name = 'packed'" ],
	[ 'a channel that is gone', "channel $channel state", "DELETE FROM message_bus.channel WHERE name = 'packed'" ],
	[ 'a channel that was dropped', "channel $channel state",
		"CREATE TEMP TABLE kept AS SELECT * FROM message_bus.channel WHERE name = 'packed'", q{DO $$ BEGIN PERFORM message_bus.drop_channel('packed'); END $$}, 'INSERT INTO message_bus.channel TABLE kept' ],
	[ 'a channel that is changed by its function', '', q{DO $$ BEGIN PERFORM message_bus.alter_channel('packed', ttl => '3 days'); END $$} ],
	[
		'a segment that is dropped', 'segment segment',
		map { ("ALTER TABLE message_bus.$_ DETACH PARTITION message_bus.${_}_$segment", "DROP TABLE message_bus.${_}_$segment") } qw(message event ack failure)
	],
	[ 'a segment that never was', 'segment segment', "DELETE FROM message_bus.segment WHERE segment_no = $segment", map { "DROP TABLE message_bus.${_}_$segment" } qw(message event ack failure) ],
	[ 'a segment\'s secret', 'segment segment', "DELETE FROM message_bus.secret_$segment" ],
	[ 'the end of a segment', qr/\Aaction \d+ removed\nsegment segment\z/, "DELETE FROM message_bus.log_action WHERE kind = 'drop-segment'" ],
	[ 'an end of a segment', 'action 77777777 added', 'ALTER TABLE message_bus.log_action DISABLE TRIGGER USER', "INSERT INTO message_bus.log_action (no, at, kind, k, segment_no) VALUES (77777777, now(), 'drop-segment', '\\x00', 1)" ]);
foreach my $case (@cases)
{
	my ($what, $faults, @statements) = @$case;
	my $found = eval { log_faults($node, 'SET LOCAL session_replication_role = replica', @statements) } // $@;

	if (ref $faults) { like($found, $faults, "$what is found, and nothing else") }
	else { is($found, $faults, "$what is found, and nothing else") }
}
is(log_faults($node), '', 'and nothing is wrong again');
sql_fails($node, 'postgres', 'BEGIN; ' . message($one, q{key = 'x'}) . "; SELECT message_bus.audit_proof($one)", 'XX001', qr/message $one does not match the log/, 'nothing is proved that was changed');
sql_fails($node, 'postgres', 'SELECT message_bus.audit_verify(5, 4)', '22023', qr/from_index 5, to_index 4/, 'a range backwards');
is(query("BEGIN; SET LOCAL session_replication_role = replica; " . message($one, q{key = 'x'})
	  . "; SELECT string_agg(i || ' ' || (SELECT count(*) FROM message_bus.audit_verify(i, i + 100)), ',') FROM generate_series(0, 299, 100) AS i; ROLLBACK") =~ tr/1//,
	2, 'it is found in the part it is of');

# ----------
# Who may see what
# ----------

query(q{
	CREATE ROLE consumer;
	CREATE ROLE auditor;
	CREATE ROLE monitor IN ROLE pg_monitor;
	SELECT message_bus.grant_channel('plain', 'consumer', 'consume');
	SELECT message_bus.grant_channel('plain', 'auditor', 'audit')});

# sees tells what each gets: "opened", "closed" (a proof without openings),
# "nothing", "refused".
sub sees
{
	my ($number, $kind) = @_;

	return join ' ', map {
		my ($status, $proof) = $node->psql('postgres', "SET ROLE $_; SELECT message_bus.audit_proof($number, '$kind')");
		$status != 0 ? 'refused' :
		  $proof eq '' ? 'nothing' :
		  decode_base64(($proof =~ /^extra (.*)$/m)[0]) =~ /\n\n./ ? 'opened' : 'closed'
	} qw(consumer auditor monitor);
}

my $nacked = query("SELECT message_id FROM message_bus.failure WHERE no = $failure");
is(sees($nacked, 'message'), 'opened refused closed', 'a message');
is(sees($failure, 'failure'), 'opened opened closed', 'a fact');
is(sees(0, 'log'), 'nothing nothing closed', 'what is done to the log');
is(sees($id[-1] + 1000, 'message'), 'nothing nothing nothing', 'what is not there');
query("SELECT message_bus.record_event($nacked, 'deleted', clock_timestamp())");
is(sees($nacked, 'message'), 'nothing nothing closed', 'a message that is deleted');
is(sees($failure, 'failure'), 'nothing opened closed', 'a fact of one that is deleted');

# ----------
# While segments go
# ----------

query(q{SELECT count(message_bus.publish('short', to_json(i))) FROM generate_series(1, 5) AS i});
log_covered($node);
{
	my $short = query("SELECT max(segment_no) FROM message_bus.segment");
	my $holder = $node->background_psql('postgres', on_error_stop => 1);
	my $verifier = $node->background_psql('postgres', on_error_stop => 0);
	my $cancelled = $node->background_psql('postgres', on_error_stop => 0);

	$holder->query_safe("BEGIN; LOCK TABLE $table IN ACCESS EXCLUSIVE MODE");
	foreach my $psql ($verifier, $cancelled)
	{
		$psql->query_until(qr/begins/, "\\echo begins\nSELECT * FROM message_bus.audit_verify();\n\\echo ended\n");
	}
	wait_for('both to verify', sub { query("SELECT count(*) FROM message_bus.audit_progress JOIN pg_stat_activity USING (pid)
		WHERE wait_event_type = 'Lock' AND from_index = 0 AND at_index = 0 AND to_index > 700 AND faults = 0 AND started_at < now()") == 2 });
	query("SELECT pg_cancel_backend(max(pid)) FROM message_bus.audit_progress");
	wait_for('one to be cancelled', sub { query("SELECT count(*) FROM message_bus.audit_progress") == 1 });
	wait_for('a segment to go', sub { query('SELECT message_bus.expire()'); query("SELECT count(*) FROM message_bus.segment WHERE segment_no = $short") == 0 });
	$holder->query_safe('COMMIT');
	$_->{timeout}->start(60) foreach $verifier, $cancelled;
	my @out = map { $_->query_until(qr/ended/, "\\echo\n") } $verifier, $cancelled;
	unlike("@out", qr/segment|removed/, 'a segment that goes meanwhile is no fault');
	is(query('SELECT count(*) FROM message_bus.audit_progress'), 0, 'and nobody verifies any more');
	$_->quit foreach $holder, $verifier, $cancelled;
}

# ----------
# While clients work
# ----------

{
	my @client = map { $node->background_psql('postgres', on_error_stop => 1) } 1, 2;

	$client[1]->query_safe('BEGIN');
	foreach my $i (1 .. 20)
	{
		$client[1]->query_safe("SELECT message_bus.publish('plain', '$i')");
		$client[0]->query_safe("SELECT count(message_bus.publish('plain', to_json(i))) FROM generate_series(1, 50) AS i");
		$client[0]->query_safe("SELECT count(message_bus.ack(lease)) FROM (SELECT DISTINCT lease FROM message_bus.claim('plain', batch => 30)) AS c");
		is(log_faults($node), '', "what clients do is no fault ($i)") if $i % 10 == 0;
	}
	$client[1]->query_safe('COMMIT');
	$_->quit foreach @client;
}
log_covered($node);
is(log_faults($node), '', 'nor what they have done');

# ----------
# On the disk
# ----------

query(q{SELECT message_bus.publish('plain', to_json('haystack ' || (SELECT string_agg(md5(g::text), '') FROM generate_series(1, 300) AS g)))});
log_covered($node);
my $big = query('SELECT max(id) FROM message_bus.messages');
my ($inline, $header, $chunk) = @id[ 100, 200, 0 ];
my ($needle, $other) = map { substr query("SELECT convert_from(payload, 'UTF8') FROM $table WHERE id = $_"), 1, -1 } $inline, $header;

# file_of returns the path of a table's file.
sub file_of { return $node->data_dir . '/' . query("SELECT pg_relation_filepath('$_[0]'::regclass)") }

# bytes_flip changes a byte of a file, some before or behind a text in it.
sub bytes_flip
{
	my ($path, $text, $offset, $byte) = @_;
	my $content = slurp_file($path);
	my $at = index($content, $text);

	die "no $text in $path" if $at < 0;
	open(my $file, '+<:raw', $path) or die;
	seek $file, $at + $offset, SEEK_SET;
	print $file $byte // chr(ord(substr $content, $at + $offset, 1) ^ 1);
	close $file;
	return;
}

my $heap = file_of($table);
my $runs = file_of('message_bus.log_run');
my $run = pack 'q<q<l<l<', split /\|/, query('SELECT first_index, lo, segment_no, kind FROM message_bus.log_run WHERE kind = 2 ORDER BY first_index LIMIT 1');
my $chunks = file_of(query("SELECT reltoastrelid::regclass FROM pg_class WHERE oid = 'message_bus.message_" . ($big >> 24) . "'::regclass"));
query('CHECKPOINT');
$node->stop;
bytes_flip($heap, "$needle\"", 3);
bytes_flip($heap, "$other\"", -2, "\xff");
bytes_flip($chunks, 'haystack ', 20);
# the number that an index has found it by
bytes_flip($runs, $run, 2);
$node->start;
is(log_faults($node), join("\n", sort "message $inline payload", "message $header unreadable", "message $big payload", ('run run') x 2),
	'what was flipped on the disk is found, and nothing else');
sql_fails($node, 'postgres', "SELECT message_bus.audit_entry($header)", 'XX001', qr/a row of message_bus.message is damaged/, 'no entry is made of a row that leads out of itself');
query("SELECT count(*) FROM message_bus.messages WHERE id = $one");
$node->stop;
bytes_flip($heap, substr($needle, 0, 3) . chr(ord(substr $needle, 3, 1) ^ 1), 3);
bytes_flip($heap, "$other\"", -2, chr(2 * (length($other) + 3) + 1));
bytes_flip($chunks, 'haystack ', 20);
substr($run, 2, 1) ^= "\1";
bytes_flip($runs, $run, 2);
# the length of a chunk: the server cannot read it
bytes_flip($chunks, 'haystack ', -5, "\x07");
$node->start;
bus_ready($node);
is(log_faults($node), "message $big payload", 'and what the server cannot read');
$node->stop;
$node->start;
bus_ready($node);

# ----------
# All of the log
# ----------

log_covered($node);
query("BEGIN; SET LOCAL session_replication_role = replica; " . message($first, q{key = 'x'})
	  . "; SELECT tree_fit($first); DELETE FROM message_bus.log_checkpoint; COMMIT");
like(log_faults($node), qr/^cosignature $seen checkpoint$/m, 'a witness\' signature tells of a log that was rewritten');
query('DELETE FROM message_bus.log_cosignature');
$node->restart;
bus_ready($node);
query("SELECT message_bus.publish('plain', '\"and on\"')");
wait_for('a checkpoint', sub { query('SELECT count(*) FROM message_bus.log_checkpoint') > 0 });
unlike(log_faults($node), qr/message $first|tile|checkpoint|cosignature/, 'without it nothing in the database does');
my ($now, $rewritten) = checkpoint();
like(ask('cosign', $key, $rewritten, consistency($seen, $now)), qr/^refused/, 'but the witness will not sign');
# the server has its end of the pipe, too
$witness->kill_kill;
$node->stop;
done_testing();
