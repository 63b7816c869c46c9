# tests/t/083_audit.t
#
# Lives and the log together: the README's ready queries as they stand there,
# an outsider's openssl, what is known of an entry when its message has gone,
# and health() in good and in bad times.

use strict;
use warnings;

use IPC::Run;
use MIME::Base64;
use MessageBus::Log;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('audit',
	conf => "message_bus.log = on\nmessage_bus.log_interval = 10ms\n"
	  . "message_bus.log_keep = 1d\nmessage_bus.segment_interval = 0\n");

sub query { return $node->safe_psql('postgres', $_[0]) }

create_bus($node);

# ----------
# The README's chapter
# ----------

my ($chapter) = slurp_file("$ENV{MBUS_TREE}/README.md") =~ /^### Audit: ready queries\n(.*?)^### /ms;
my @blocks = $chapter =~ /^```sql\n(.*?)^```$/msg;
my @scripts = $chapter =~ /^```sh\n(.*?)^```$/msg;
my %vars = (
	channel => 'responses', session => 's1', tool => 'search',
	transaction => 'call-2', reader => 'reader');

is(scalar @blocks, 9, 'the chapter has its queries');

# ready runs the next of them as its reader would, and returns what it prints.
sub ready
{
	my ($out, $err);

	IPC::Run::run(
		[
			'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'),
			map { ('-v', "$_=$vars{$_}") } sort keys %vars
		],
		'<', \(shift @blocks), '>', \$out, '2>', \$err);
	diag($err) if $err;
	chomp $out;
	return $out;
}

query(q{
	CREATE ROLE reader; CREATE ROLE tool; CREATE ROLE stranger;
	SELECT message_bus.create_channel('responses', backoff => '0', backoff_max => '0', max_attempts => 2);
	SELECT message_bus.create_subscription('responses', 'app');
	SELECT message_bus.grant_channel('responses', 'tool', 'publish');
	SELECT message_bus.grant_channel('responses', 'reader', 'consume')});
query(qq{SET ROLE tool;
	SELECT message_bus.publish('responses', '$_->[1]', transaction_id => '$_->[0]',
		headers => '{"session_id": "$_->[2]", "tool_name": "$_->[3]"}')})
  foreach (
	[ 'call-1', '{"hits": 1}', 's1', 'search' ],
	[ 'call-2', '{"hits": 22}', 's1', 'search' ],
	[ 'call-3', '[]', 's2', 'fetch' ]);
my %id = map { split /\|/ } split /\n/, query('SELECT transaction_id, id FROM message_bus.messages');
sql_fails($node, 'postgres', q{SET ROLE tool; SELECT message_bus.publish('responses', '0', transaction_id => 'call-2')}, '23505', qr/was used before/, 'other bytes are refused');
query(q{SET ROLE reader; SET request.jwt.claims = '{"sub": "agent-7"}';
	SELECT message_bus.nack(lease, reason => 'not now') FROM message_bus.claim('responses', 'app', 1);
	SELECT message_bus.ack(lease) FROM message_bus.claim('responses', 'app', 1)});
wait_for('the refusal to be recorded', sub { query(q{SELECT count(*) FROM message_bus.refusal_rows('responses', 'call-2')}) eq '1' });
log_covered($node);
$vars{id} = $id{'call-1'};

like(ready(), qr/^responses\|tool\|\|3\|25\|[^|]+\|[^|]+$/m, 'who published what');
like(ready(), qr/^$id{'call-2'}\|call-2\|search\|12\|pending\|\S+ \S+$/, 'which responses of a session were never read');
like(ready(), qr/^\S+ \S+\|$id{'call-1'}\|app\|nacked\|1\|not now\|f$/, 'which deliveries failed, and why');
like(ready(), qr/^\S+ \S+\|publish\|23505\|[^|]*call-2[^|]*\|[^|]*\|responses\|call-2\|tool$/m, 'which calls failed, and why');
is(ready(), '2|11|12|12|12', 'how large the responses of a tool were');
like(
	ready(),
	qr/^\S+ \S+\|$id{'call-2'}\|published\|\|\|tool\|[^\n]*\n\S+ \S+\|\|refused\|\|\|tool\|\|[^|]*was used before[^|]*\|23505, publish/,
	'everything of a transaction');
my $delivered = ready();
like($delivered, qr/^app\|agent-7\|\|\S+ \S+\|\S+ \S+\|[0-9a-f]{64}\|c2sp/, 'whether it was delivered, when, and unmodified');
my @proofs = split /(?<=\n)\|/, $delivered =~ s/^.*?\|(?=c2sp)//r;
is(scalar @proofs, 2, 'with a proof of each');
$vars{proof} = $proofs[1];
my @openings = map { [ split /\|/ ] } split /\n/, ready();
is_deeply([ map { "@$_[1,2]" =~ /^(\S+) \S+ (\S+ \S)/ ? "$1 $2" : '' } @openings ],
	[ 'subject ' . encode_base64('agent-7', '') . ' t' ], 'a proof\'s opening says to whom');

SKIP:
{
	skip 'there is no Go with golang.org/x/mod', 1 if !log_judge_built();
	my $key = query('SELECT message_bus.audit_key()');

	is_deeply([ log_judged(map { "proof $key " . encode_base64($_, '') } @proofs) ], [ 'ok', 'ok' ],
		'others\' code says that both hold');
}
{
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my ($out, $err);
	local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'postgres');

	IPC::Run::run([ 'sh', '-ec', "cd '$dir'\n$scripts[0]" ], '>', \$out, '2>', \$err);
	like($out, qr/Verified Successfully/, 'openssl says that the checkpoint is signed') or diag($err);
	IPC::Run::run([ 'sh', '-ec', "cd '$dir'\nsed -i 2s/./9/ checkpoint.text\n" . ($scripts[0] =~ s/.*\n(?=openssl)//sr) ], '>', \$out, '2>', \$err);
	unlike($out, qr/Verified Successfully/, 'and that another size is not');

	# the line that asks the judge, which is built already
	my $ask = $scripts[1] =~ s/^(?:#|\(cd ).*\n//gmr;
	is($ask =~ s{/tmp/log_verify}{$ENV{TESTDATADIR}/log_verify}, 1, 'the chapter asks the judge');
	SKIP:
	{
		skip 'there is no Go with golang.org/x/mod', 1 if !-x "$ENV{TESTDATADIR}/log_verify";
		IPC::Run::run([ 'sh', '-ec', "cd '$dir'\nid=$id{'call-2'}\n$ask" ], '>', \$out, '2>', \$err);
		is($out, "ok\n", 'who says that a proof holds') or diag($err);
	}
}

# ----------
# What the log still knows
# ----------

query(q{SELECT message_bus.create_channel('brief', ttl => '2 seconds');
	SELECT message_bus.create_subscription('brief', 'app');
	SELECT message_bus.publish('brief', '{"answer": 42}', transaction_id => 'gone-1');
	SELECT message_bus.ack(lease) FROM message_bus.claim('brief', 'app')});
log_covered($node);
my ($message, $ack, $proof) = split /;/, query(q{
	SELECT message_bus.audit_entry(d.message_id)::text, message_bus.audit_entry(d.no, d.kind)::text, message_bus.audit_proof(d.message_id)
	FROM message_bus.deliveries d WHERE channel = 'brief'}) =~ s/\|/;/gr;
my $hash = query(q{SELECT translate(encode(sha256('{"answer": 42}'), 'base64'), E'\n', '')});
my ($payload_opening) = decode_base64(($proof =~ /^extra (.*)$/m)[0]) =~ /\n\n.*?^(payload .*?)$/ms;
like($payload_opening, qr/ \Q$hash\E$/, 'the opening has the payload\'s SHA-256');
sub lookup { return query("SET ROLE stranger; SELECT kind, logged, status, role, size, outcome FROM message_bus.audit_lookup('$_[0]')") }
my $me = query('SELECT current_user');

is(lookup($message), "message|t|stored|$me|14|", 'an entry of what is there');
is(lookup($ack), "ack|t|stored|$me||acked", 'and of its ack');
is(query("SELECT message_bus.audit_opening('$message', '$payload_opening')"), 't', 'its payload is opened');
is(query("SELECT message_bus.audit_opening('$message', '$_')"), 'f', "not by \"$_\"")
  foreach ('', ' ', 'payload', "payload 00 $hash", 'payload ' . '0' x 32 . " $hash", ($payload_opening =~ s/payload/transaction/r), 'payload ' . '0' x 32 . ' %');

wait_for('its segment to go', sub {
	$node->psql('postgres', 'SELECT message_bus.expire()');
	return query(qq{SELECT count(*) FROM message_bus.log_action WHERE kind = 'drop-segment'}) ne '0';
});
log_covered($node);
is(query(q{SELECT count(*) FROM message_bus.deliveries WHERE channel = 'brief'}), '0', 'nothing else is known of it');
is(lookup($message), "message|t|dropped|$me|14|", 'the entry of what has gone');
is(lookup($ack), "ack|t|dropped|$me||acked", 'and of its ack');
is(query("SELECT message_bus.audit_opening('$message', '$payload_opening')"), 't', 'its payload is opened as before');
is(lookup(query("SELECT message_bus.audit_entry(max(no), '$_') FROM message_bus.log_action WHERE kind = '$_' AND no > 0")), "$_|t|stored|$me||", "the entry of a change: $_")
  foreach qw(channel grant subscription);
is(query("BEGIN; DELETE FROM message_bus.log_tile WHERE level = 0; SELECT logged, status, number > 0 FROM message_bus.audit_lookup('$message'); ROLLBACK"),
	'|pruned|t', 'of what has been pruned that is said');
$vars{entry} = $message;
like(ready(), qr/^message\|\d+\|t\|dropped\|\S+ \S+\|\S+ \S+\|$me\|14\|application\/json$/, 'the README\'s query says so');

# other bytes
{
	my $entry = pack 'H*', $message =~ s/^\\x//r;
	my @changed;

	srand($ENV{AUDIT_SEED} // 4711);
	foreach my $round (1 .. 1000)
	{
		my $bytes = $entry;
		my $at = int rand length $bytes;
		my $what = $round % 4;

		if ($what == 0) { substr($bytes, $at, 1) = chr int rand 256 }
		elsif ($what == 1) { substr($bytes, $at) = '' }
		elsif ($what == 2) { substr($bytes, $at, 0) = ("\n", ' ', '%', "id 1\n", '9' x 30, "\0", "\xff")[ rand 7 ] }
		else { substr($bytes, $at, int rand 30) = '' }
		push @changed, unpack 'H*', $bytes if $bytes ne $entry && $bytes ne '';
	}
	my $answers = query(q{
		CREATE FUNCTION pg_temp.said(bytes bytea) RETURNS text LANGUAGE plpgsql AS $$
		BEGIN
			RETURN (SELECT logged::text FROM message_bus.audit_lookup(bytes));
		EXCEPTION WHEN invalid_parameter_value THEN
			RETURN 'refused';
		END $$;
		SELECT string_agg(DISTINCT pg_temp.said(decode(b, 'hex')), ',') FROM unnest('{@}'::text[]) AS b} =~ s/@/join ',', @changed/er);

	is($answers, 'false,refused', 'changed bytes are not logged, or no entry');
}
sql_fails($node, 'postgres', q{SELECT * FROM message_bus.audit_lookup('\x')}, '22023', qr/no entry of a log/, 'no bytes');
sql_fails($node, 'postgres', q{SELECT * FROM message_bus.audit_lookup(convert_to('mbus/1 message' || E'\n' || repeat('x', 70000), 'UTF8'))}, '22023', qr/no entry of a log/, 'too many bytes');
sql_fails($node, 'postgres', q{SELECT message_bus.audit_opening('mbus/1 message'::bytea || '\x0a', repeat('x', 17000000))}, '54000', qr/too long/, 'an opening that is too long');

# ----------
# A life in several segments
# ----------

query(q{SELECT message_bus.create_channel('graves'); SELECT message_bus.create_channel('ways', backoff => '0', max_attempts => 1, dead_letter => 'graves', ttl => '1 hour');
	SELECT message_bus.create_subscription('ways', 'w')});
my $way = query(q{SELECT message_bus.publish('ways', '1', transaction_id => 'way')});
query(q{SELECT message_bus.nack(lease, reason => 'lost') FROM message_bus.claim('ways', 'w')});
is(query("SELECT string_agg(event, ',' ORDER BY at, message_id), count(DISTINCT message_id >> 24) > 1 FROM message_bus.trace($way) t"),
	'published,claimed,published,nacked,dead|t', 'a life goes on in another segment');
# a lease that ends, and one that a crash has ended
query(q{SELECT count(*) FROM message_bus.redrive('graves');
	SELECT count(*) FROM message_bus.claim('ways', 'w', 1, lease_for => '0.1 seconds')});
wait_for('the lease to end', sub { query("SELECT count(*) FROM message_bus.trace($way) t WHERE event = 'lease_expired'") ne '0' });
is(query("SELECT count(*), bool_and(role IS NULL) FROM message_bus.deliveries WHERE message_id = $way AND outcome = 'expired' AND dead"),
	'1|t', 'a lease that ends is told, and not by whom');
is(query("SELECT count(*) FROM message_bus.failures(now() - interval '1 hour') WHERE message_id = $way"), '2', 'both are failures');

# ----------
# Health
# ----------

query(q{CREATE ROLE watcher IN ROLE pg_monitor});

# health returns the checks in a state.
sub health
{
	return query(qq{SET ROLE watcher; SELECT check_name FROM message_bus.health() WHERE state = '$_[0]' ORDER BY 1}) =~ s/\n/,/gr;
}
is(query(q{SET ROLE watcher; SELECT count(*) = count(figure), count(*) > 17, count(action) FROM message_bus.health()}), 't|t|0', 'all is well, each with a figure');
is(health('ok'), query(q{SELECT string_agg(check_name, ',' ORDER BY check_name) FROM message_bus.health()}), 'each check is ok');
sql_fails($node, 'postgres', 'SET ROLE stranger; SELECT * FROM message_bus.health()', '42501', qr/permission denied/, 'which is not for all');

# dead letters that cannot be moved, and an error that is the server's
query(q{SELECT message_bus.create_channel('gone'); SELECT message_bus.create_channel('mortal', dead_letter => 'gone');
	SELECT message_bus.drop_channel('gone');
	INSERT INTO message_bus.error (at, sqlstate, function, role, pid, message) VALUES (clock_timestamp(), 'XX001', 'get', 'x', 0, 'stored bytes do not match')});
is(health('warning'), 'dead letters,errors', 'dead letters that stay, grave errors');
like(query(q{SELECT figure FROM message_bus.health() WHERE check_name = 'dead letters'}), qr/^mortal \(dropped\)$/, 'of which channel');
query(q{SELECT message_bus.drop_channel('mortal'); DELETE FROM message_bus.error WHERE sqlstate = 'XX001'});
is(health('warning'), '', 'all is well again') or diag(query('SELECT * FROM message_bus.errors'));

# tables that were dropped by hand, a secret that is missing
my $segment = query('SELECT min(segment_no) FROM message_bus.segment');
query(qq{ALTER TABLE message_bus.secret_$segment RENAME TO hidden_$segment; ALTER TABLE message_bus.event_$segment RENAME TO other_$segment});
is(health('error'), 'secrets,segments', 'a secret and a table that are missing');
query(qq{ALTER TABLE message_bus.hidden_$segment RENAME TO secret_$segment; ALTER TABLE message_bus.other_$segment RENAME TO event_$segment});

# a clock that is off, numbers that run out, a name that is none, no worker
$node->append_conf('postgresql.conf', "message_bus.databases = 'postgres,nowhere'");
$node->reload;
wait_for('the name to be seen', sub { health('warning') =~ /databases/ });
pass('a name that is no database');
$node->append_conf('postgresql.conf', "message_bus.databases = 'template1'");
$node->reload;
wait_for('the worker to go', sub { health('error') =~ /worker/ });
like(health('error'), qr/^publishing,worker/, 'no worker');
$node->stop;
done_testing();
