# tests/t/081_log_entries.t
#
# Entries of the log, byte for byte: made anew from the rows, and from the
# examples of extension/log/README.md.  Each row is in the log once, also when
# transactions overlap; what is left of a segment that goes; another origin.

use strict;
use warnings;

use Digest::SHA qw(sha256 sha256_hex hmac_sha256);
use MIME::Base64;
use MessageBus::Log;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# ----------
# Entries, as README.md tells
# ----------

sub salt { return substr sha256("$_[0]$_[1]"), 0, 16 }

sub escaped { return $_[0] =~ s/([^\x21-\x24\x26-\x7e])/sprintf '%%%02X', ord $1/ger }

# entry makes one: lines are [name, value], commitments [name, value, 1].
sub entry
{
	my ($kind, $key, @lines) = @_;

	return "mbus/1 $kind\n" . join(
		'',
		map {
			my ($name, $value, $hidden) = @$_;
			$value = sha256_hex(salt($key, $name) . $value) if $hidden;
			"$name $value\n";
		} grep { defined $_->[1] } @lines)
	  . 'nonce ' . unpack('H*', salt($key, 'nonce')) . "\n";
}

sub key_of { return hmac_sha256("$_[1] $_[2]", $_[0]) }

# the examples
{
	open(my $fh, '<:raw', "$ENV{MBUS_TREE}/extension/log/README.md") or die;
	my $readme = do { local $/; <$fh> };
	my $secret = join '', map { chr } 0 .. 31;
	my $payload = '{"vote":"yes"}';
	my $id = 160 << 24 | 7;
	my $no = 1764452861 << 32 | 9;
	my @examples = (
		entry(
			'message', key_of($secret, 'message', $id),
			[ id => $id ], [ channel => 17 ], [ created => 1764452860123456 ],
			[ expires => 1764625660123456 ], [ role => escaped('tool server') ],
			[ size => length $payload ], [ payload => sha256($payload), 1 ],
			[ session => 4711, 1 ], [ transaction => "\xc3\xbcber\n1", 1 ]),
		entry(
			'ack', key_of($secret, 'ack', $no),
			[ no => $no ], [ subscription => 3 ],
			[ ids => "$id " . ($id + 4) . ' 3' ], [ runs => sha256_hex('0,2,4,1') ],
			[ lease => 8600000001 ], [ attempt => 1 ], [ outcome => 'acked' ],
			[ claimed => 1764452861000000 ], [ at => 1764452862000000 ],
			[ role => 'worker' ]),
		entry(
			'drop-segment', join('', map { chr } 32 .. 63),
			[ no => 4242 ], [ at => 1764712060123456 ], [ segment => 160 ],
			[ entries => 2 ]),
		entry(
			'grant', join('', map { chr } 64 .. 95),
			[ no => $no + 1 ], [ channel => 17 ], [ at => 1764452863000000 ],
			[ role => 'alice' ],
			[ subject => 'ada', 1 ],
			[ details => '{"change":"granted","privileges":"consume","to":"bob","channel_id":17,'
				. '"grantee":"bob","may_publish":false,"may_consume":true,'
				. '"grantee_at":"7301234567890123456 16401","may_audit":false,"all_subjects":false}', 1 ]));
	foreach my $example (@examples)
	{
		my ($kind) = $example =~ /^mbus.1 (\S+)/;
		like($readme, qr/^```\n\Q$example\E```\n\nHash: `@{[sha256_hex("\0$example")]}`$/m,
			"the example of $kind is right");
	}
}

# ----------
# A bus
# ----------

my $node = bus_node('log_entries',
	conf => "message_bus.log = on\nmessage_bus.log_interval = 10ms\n"
	  . "message_bus.segment_interval = 0\n");

sub query { return $node->safe_psql('postgres', $_[0]) }

create_bus($node);
query(q{
	SELECT message_bus.create_channel('letters');
	SELECT message_bus.create_channel('plain', backoff => '0', backoff_max => '0', max_attempts => 2, dead_letter => 'letters');
	SELECT message_bus.drop_channel('letters');
	SELECT message_bus.create_subscription('plain', 'reader');
	SELECT message_bus.create_channel('short', ttl => '1 second');
	CREATE ROLE "odd %role" IN ROLE pg_monitor;
	SELECT message_bus.grant_channel('plain', '"odd %role"', 'all');
	GRANT EXECUTE ON FUNCTION message_bus.set_jwt_keys, message_bus.create_channel, message_bus.purge_channel TO "odd %role"});
query(q{SET ROLE "odd %role"; SET request.jwt.claims = '{"sub": "kä"}';
	SELECT message_bus.create_channel('odd " channel');
	SELECT message_bus.purge_channel('odd " channel');
	SELECT message_bus.set_jwt_keys('{"keys": []}')});
query(q{SET ROLE "odd %role";
	SELECT message_bus.publish('plain', '{"a": 1}', headers => '{"b": [2, "x"], "a": null}', key => 'kä', transaction_id => E't\n1');
	SELECT message_bus.publish_text('plain', 'text', content_type => 'text/plain; charset=utf-8', delay => '1 hour');
	SELECT message_bus.publish_bytes('plain', '\x00ff', content_type => 'application/octet-stream');
	SELECT count(message_bus.publish('plain', to_json(i))) FROM generate_series(1, 10) AS i});
query(q{
	SELECT message_bus.nack(lease, ARRAY[id], reason => 'not ' || id) FROM message_bus.claim('plain', 'reader', batch => 2);
	SELECT message_bus.nack(lease, ARRAY[id], delay => '1 hour') FROM message_bus.claim('plain', 'reader', batch => 1);
	SELECT message_bus.ack(lease, array_agg(id) FILTER (WHERE id % 3 > 0)) FROM message_bus.claim('plain', 'reader', batch => 8) GROUP BY lease;
	SELECT message_bus.record_event(id, 'accessed', clock_timestamp()) FROM message_bus.messages WHERE content_type = 'text/plain; charset=utf-8';
	SELECT message_bus.record_event(id, 'deleted', clock_timestamp()) FROM message_bus.messages WHERE content_type = 'application/octet-stream'});
log_has_all($node, 'each row is in the log once');

# ----------
# The entries of all rows
# ----------

# rows returns a query's rows as arrays of values, of which NULL is undef.
sub rows
{
	my ($sql) = @_;

	return map { [ map { /^-$/ ? undef : pack 'H*', $_ } split /\|/ ] }
	  split /\n/, $node->safe_psql('postgres',
		  'SELECT ' . join(', ', map { "coalesce(encode(convert_to(($_)::text, 'UTF8'), 'hex'), '-')" } @{ $_[1] }) . " FROM $sql");
}

sub us { return "(extract(epoch FROM $_[0]) * 1000000)::bigint" }

# secret_of returns a segment's secret.
sub secret_of
{
	return pack 'H*', query("SELECT replace(first::text || second::text, '-', '') FROM message_bus.secret_$_[0]") =~ s/\s//gr;
}

my %kinds;

# same_entry checks one, and its proof's index and openings.
sub same_entry
{
	my ($kind, $number, $entry) = @_;
	my ($got, $proof) = map { pack 'H*', $_ } split /\|/, query(
		"SELECT encode(message_bus.audit_entry($number, '$kind'), 'hex'), encode(message_bus.audit_proof($number, '$kind')::bytea, 'hex')");
	my ($extra) = $proof =~ /^extra (.*)$/m;
	my ($index) = $proof =~ /^index (\d+)$/m;
	my ($shown, $openings) = split /\n\n/, decode_base64($extra), 2;
	my $hidden = 0;

	$kinds{$kind}++;
	return fail("entry of $kind $number: $got and not $entry") if $got ne $entry || "$shown\n" ne $entry;
	foreach my $opening (split /\n/, $openings // '')
	{
		my ($name, $salt, $value) = split / /, $opening;
		my $commitment = sha256_hex(pack('H*', $salt) . decode_base64($value));

		$hidden++;
		return fail("opening of $name in $kind $number") if $entry !~ /^$name $commitment$/m;
	}
	is($hidden, scalar(() = $entry =~ /^(?!nonce|runs)\S+ [0-9a-f]{64}$/mg), "all of $kind can be opened") if $kinds{$kind} == 1;
	my $leaf = query('SELECT encode(substring(string_agg(hashes, NULL ORDER BY from_hash) FROM '
		  . ($index % 256 * 32 + 1) . ' FOR 32), \'hex\') FROM message_bus.log_tile WHERE level = 0 AND n = ' . int($index / 256));
	return fail("hash of $kind $number") if $leaf ne sha256_hex("\0$entry");
	return;
}

foreach my $row (rows(
		'message_bus.message JOIN message_bus.publisher USING (publisher_id)',
		[ 'id', 'id >> 24', 'channel_id', us('created_at'), us('expires_at'), us('available_at'), 'name', 'content_type', 'size', q{encode(sha256, 'hex')}, qw(subject recipient session key transaction_id headers) ]))
{
	my ($id, $segment, $channel, $created, $expires, $available, $role, $type, $size, $sha, @hidden) = @$row;

	next if query("SELECT count(*) FROM message_bus.get($id)") == 0;	# deleted
	same_entry('message', $id,
		entry('message', key_of(secret_of($segment), 'message', $id),
			[ id => $id ], [ channel => $channel ], [ created => $created ], [ expires => $expires ], [ available => $available ],
			[ role => escaped($role) ], [ type => $type && escaped($type) ], [ size => $size ],
			[ payload => pack('H*', $sha), 1 ],
			map { [ $_ => shift @hidden, 1 ] } qw(subject recipient session key transaction headers)));
}
foreach my $row (rows('message_bus.ack',
		[ qw(no lo hi n), q{array_to_string(runs, ',')}, qw(subscription_id lease attempt outcome), us('claimed_at'), us('at'), qw(role subject session) ]))
{
	my ($no, $lo, $hi, $n, $runs, $subscription, $lease, $attempt, $outcome, $claimed, $at, $role, @hidden) = @$row;

	same_entry('ack', $no,
		entry('ack', key_of(secret_of($lo >> 24), 'ack', $no),
			[ no => $no ], [ subscription => $subscription ], [ ids => "$lo $hi $n" ], [ runs => defined $runs ? sha256_hex($runs) : undef ],
			[ lease => $lease ], [ attempt => $attempt ], [ outcome => $outcome ], [ claimed => $claimed ], [ at => $at ],
			[ role => escaped($role) ], map { [ $_ => shift @hidden, 1 ] } qw(subject session)));
}
foreach my $row (rows('message_bus.failure',
		[ qw(no message_id subscription_id lease attempt kind), us('claimed_at'), us('retry_at'), qw(dead_letter_id not_moved), us('at'), qw(role subject session reason) ]))
{
	my ($no, $id, $subscription, $lease, $attempt, $what, $claimed, $retry, $dead, $kept, $at, $role, @hidden) = @$row;

	same_entry('failure', $no,
		entry('failure', key_of(secret_of($id >> 24), 'failure', $no),
			[ no => $no ], [ id => $id ], [ subscription => $subscription ], [ lease => $lease ], [ attempt => $attempt ], [ what => $what ],
			[ claimed => $claimed ], [ retry => $retry ], [ dead => $dead ], [ kept => $kept ], [ at => $at ], [ role => escaped($role) ],
			map { [ $_ => shift @hidden, 1 ] } qw(subject session reason)));
	$kinds{kept}++ if defined $kept;
}
foreach my $row (rows('message_bus.event', [ qw(no message_id), us('at'), qw(kind role subject session) ]))
{
	my ($no, $id, $at, $kind, $role, @hidden) = @$row;
	my $word = $kind eq 'deleted' ? 'delete' : 'access';

	same_entry($word, $no,
		entry($word, key_of(secret_of($id >> 24), $word, $no),
			[ no => $no ], [ id => $id ], [ at => $at ], [ role => escaped($role) ], map { [ $_ => shift @hidden, 1 ] } qw(subject session)));
}
foreach my $row (rows('message_bus.log_action WHERE details IS NOT NULL',
		[ qw(no kind channel_id), us('at'), qw(role subject session details), "encode(k, 'hex')" ]))
{
	my ($no, $kind, $channel, $at, $role, $subject, $session, $details, $k) = @$row;

	same_entry($kind, $no,
		entry($kind, pack('H*', $k),
			[ no => $no ], [ channel => $channel ], [ at => $at ], [ role => escaped($role) ],
			[ subject => $subject, 1 ], [ session => $session, 1 ], [ details => $details, 1 ]));
}
is_deeply([ sort keys %kinds ], [qw(access ack channel delete failure grant kept keys message purge subscription)],
	'there were entries of all kinds, each right');

# ----------
# Who may
# ----------

query('CREATE ROLE stranger');
my $id = query('SELECT min(id) FROM message_bus.messages');
my $no = query('SELECT min(no) FROM message_bus.ack');
is(query("SET ROLE stranger; SELECT message_bus.audit_entry($no, 'ack') IS NULL"), 't', 'a stranger sees no fact');
is(query("SET ROLE stranger; SELECT message_bus.audit_entry(NULL, 'log') IS NULL"), 't', 'nor what is done to the log');
sql_fails($node, 'postgres', "SET ROLE stranger; SELECT message_bus.audit_proof($id)", '42501', qr/permission denied for message/, 'nor a message');
sql_fails($node, 'postgres', 'SET ROLE stranger; SELECT message_bus.audit_checkpoint()', '42501', qr/permission denied/, 'nor checkpoints');
is(query("SELECT message_bus.audit_entry(-1, 'gap') IS NULL"), 't', 'a number that no entry has');
sql_fails($node, 'postgres', "SELECT message_bus.audit_entry(1, 'what')", '22023', qr/"what" is no kind/, 'a kind that is none');
sql_fails($node, 'postgres', 'SELECT message_bus.audit_consistency(5, 4)', '22023', qr/newest checkpoint has/, 'a proof backwards');
sql_fails($node, 'postgres', 'SELECT message_bus.audit_consistency(0, 100000)', '22023', qr/newest checkpoint has/, 'a proof of what is not there');
is(query('SELECT count(*) FROM message_bus.audit_consistency(0, 1)'), 0, 'from nothing there is nothing to prove');

# ----------
# Transactions that overlap
# ----------

{
	my @open = map { $node->background_psql('postgres', on_error_stop => 1) } 1 .. 3;

	foreach my $round (1 .. 10)
	{
		foreach my $i (0 .. 2)
		{
			$open[$i]->query_safe('BEGIN') if $round % 3 == 1;
			$open[$i]->query_safe("SELECT count(message_bus.publish('plain', to_json(i))) FROM generate_series(1, 7) AS i");
			$open[$i]->query_safe('SAVEPOINT s');
			$open[$i]->query_safe("SELECT message_bus.record_event(id, 'accessed', clock_timestamp()) FROM message_bus.peek('plain') LIMIT 3");
			$open[$i]->query_safe("SELECT message_bus.publish('plain', '0')");
			$open[$i]->query_safe("SELECT message_bus.create_channel('of $i in $round')");
			$open[$i]->query_safe($round % 2 ? 'ROLLBACK TO s' : 'RELEASE s');
		}
		query("SELECT message_bus.publish('plain', '1')");
		if ($round % 3 == 0)
		{
			$open[$_]->query_safe(($_ + $round) % 4 ? 'COMMIT' : 'ROLLBACK') foreach 0 .. 2;
		}
	}
	$_->query_safe('COMMIT') foreach @open;
	$_->quit foreach @open;
}
log_has_all($node, 'also where transactions overlapped');

# ----------
# A segment goes
# ----------

query("SELECT count(message_bus.publish('short', to_json(i))) FROM generate_series(1, 5) AS i");
my $short = query("SELECT max(id) >> 24 FROM message_bus.messages WHERE channel = 'short'");
query("SELECT message_bus.record_event(id, 'accessed', clock_timestamp()) FROM message_bus.messages WHERE channel = 'short'");
wait_for('the segment to go', sub { query('SELECT message_bus.expire()'); query("SELECT count(*) FROM message_bus.segment WHERE segment_no = $short") eq '0' });
is(query("SELECT n FROM (SELECT kind, sum(n) AS n FROM message_bus.log_run WHERE segment_no = $short GROUP BY kind ORDER BY kind) AS x"), "5\n5", 'all of it was logged');
my ($action, $at, $entries, $k) = split /\|/, query('SELECT no, ' . us('at') . ", entries, encode(k, 'hex') FROM message_bus.log_action WHERE segment_no = $short");
log_covered($node);
same_entry('drop-segment', $action, entry('drop-segment', pack('H*', $k), [ no => $action ], [ at => $at ], [ segment => $short ], [ entries => 10 ]));
is($entries, 10, 'and that it went');

# ----------
# One goes while the log is off
# ----------

$node->append_conf('postgresql.conf', "message_bus.log = off\n");
$node->reload;
query("SELECT count(message_bus.publish('short', to_json(i))) FROM generate_series(1, 5) AS i");
$short = query("SELECT max(id) >> 24 FROM message_bus.messages WHERE channel = 'short'");
wait_for('it to go unlogged', sub { query('SELECT message_bus.expire()'); query("SELECT count(*) FROM message_bus.segment WHERE segment_no = $short") eq '0' });
$node->append_conf('postgresql.conf', "message_bus.log = on\n");
$node->reload;
query("SELECT message_bus.publish('plain', '1')");
log_has_all($node, 'the log goes on when it is on again');
($action, $at, $entries, $k) = split /\|/, query('SELECT no, ' . us('at') . ", entries, encode(k, 'hex') FROM message_bus.log_action WHERE kind = 'gap' AND segment_no = $short");
same_entry('gap', $action, entry('gap', pack('H*', $k), [ no => $action ], [ at => $at ], [ segment => $short ], [ entries => $entries ]));
is($kinds{gap}, 1, 'and says what went unlogged');

# ----------
# Changes that have no number yet, and from before the log
# ----------

$node->append_conf('postgresql.conf', "message_bus.log = off\n");
$node->reload;
query('CREATE DATABASE later');
$node->safe_psql('later', q{CREATE EXTENSION message_bus; SELECT message_bus.create_channel('unserved')});
is($node->safe_psql('later', 'SELECT count(*) FROM message_bus.log_action WHERE no < 0 AND k IS NOT NULL'), 2, 'without a worker changes have no number');
is($node->safe_psql('later', 'SELECT count(*) FROM message_bus.audit_log WHERE no IS NULL'), 2, 'nor in the view');
$node->append_conf('postgresql.conf', "message_bus.databases = 'postgres, later'\n");
$node->reload;
wait_for('the worker', sub { $node->safe_psql('later', 'SELECT next IS NOT NULL FROM message_bus.fact_numbers()') eq 't' });
$node->safe_psql('later', q{SELECT count(message_bus.create_channel('before ' || i)) FROM generate_series(1, 9000) AS i});
my $unlogged = $node->background_psql('later');
$unlogged->query_safe(q{BEGIN; SELECT message_bus.create_channel('open meanwhile')});
$node->append_conf('postgresql.conf', "message_bus.log = on\n");
$node->reload;
$node->safe_psql('later', q{SELECT message_bus.publish('unserved', '1')});
wait_for('the log to begin', sub { $node->safe_psql('later', "SELECT count(*) FROM message_bus.log_state WHERE actions_pending = '{}'") eq '1' });
$unlogged->query_safe('COMMIT');
$unlogged->quit;
log_has_all($node, 'what was changed before there was a log or a number is in it once', 'later');
is($node->safe_psql('later', "SELECT sum(n) FROM message_bus.log_run WHERE kind = 4"), 9004, 'all of it');

# ----------
# A crash, and another origin
# ----------

my $size = query('SELECT max(size) FROM message_bus.log_checkpoint');
my $root = query("SELECT encode(root, 'base64') FROM message_bus.log_checkpoint WHERE size = $size");
my $origin = query('SELECT origin FROM message_bus.log_state');
$node->stop('immediate');
$node->start;
bus_ready($node);
query("SELECT message_bus.publish('plain', '1')");
log_has_all($node, 'a crash loses nothing of it');
is(query('SELECT origin FROM message_bus.log_state'), $origin, 'and it is the same log');
is(query("SELECT encode(root, 'base64') FROM message_bus.log_checkpoint WHERE size = $size"), $root, 'with the same beginning');

my ($before) = query('SELECT size FROM message_bus.log_state');
$node->append_conf('postgresql.conf', "message_bus.log_origin = 'other.example'\n");
$node->reload;
wait_for('the other name', sub { query('SELECT origin FROM message_bus.log_state') ne $origin });
log_has_all($node, 'the log goes on under another origin');
like(query('SELECT message_bus.audit_checkpoint()'), qr{\Aother\.example/[0-9a-f-]{36}\n}, 'which checkpoints have');
like(query("SELECT convert_from(message_bus.audit_entry(NULL, 'log'), 'UTF8')"),
	qr{^continues \Q$origin\E \d+ [A-Za-z0-9+/]{43}=$}m, 'and an entry says what it continues');
$node->stop;
done_testing();
