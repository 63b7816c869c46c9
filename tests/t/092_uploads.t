# tests/t/092_uploads.t
#
# Uploads that are killed and go on; whose space comes back; that expire; and
# what one transaction of them costs.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use IPC::Run qw(start finish);
use Test::More;
use Time::HiRes qw(usleep);

use constant PART => 262144;

my $node = bus_node('uploads',
	conf => "message_bus.own_body_min = '1MB'\n"
	  . "message_bus.worker_interval = 100ms\n");

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

create_bus($node);
sql(q{
	SELECT message_bus.create_channel('up', ttl => '1 hour');
	CREATE FUNCTION chunk(n bigint, bytes int DEFAULT 262144) RETURNS bytea LANGUAGE sql AS $$
		SELECT substr(string_agg(sha256(convert_to(n || ':' || i, 'UTF8')), ''::bytea ORDER BY i), 1, bytes)
		FROM generate_series(0, (bytes - 1) / 32) AS i
	$$;
});

# ----------
# Killed at random, and told again
# ----------

my $parts = 24;
my $size = $parts * PART + 777;
my %acked;
my $upload;

# bytes_of is SQL for the bytes of a part.
sub bytes_of
{
	return "chunk($_[0], " . ($_[0] == $parts ? 777 : PART) . ")";
}

# running starts a statement in a session of its own.
sub running
{
	my ($statement) = @_;
	my %run = (in => '', out => '', err => '');

	$run{h} = start(
		[
			'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1',
			'-d', $node->connstr('postgres') . ' application_name=uploader',
			'-c', $statement
		],
		\$run{in}, \$run{out}, \$run{err});
	return \%run;
}

# done waits for its end and returns what it said, or undef.
sub done
{
	my ($run) = @_;

	return if !eval { finish($run->{h}) };
	chomp $run->{out};
	return $run->{out};
}

# kill_some kills the client, its backend, or the postmaster.
sub kill_some
{
	my ($kind, $run) = @_;

	usleep(int rand 60_000);
	if ($kind eq 'client')
	{
		$run->{h}->signal('KILL');
	}
	elsif ($kind eq 'backend')
	{
		my ($status, $pid) = $node->psql('postgres',
			q{SELECT pid FROM pg_stat_activity WHERE application_name = 'uploader'});

		kill 9, split /\n/, $pid if $status == 0 && $pid;
	}
	else
	{
		$node->kill9;
		restart_killed($node);
	}
}

# missing asks until the server answers.
sub missing
{
	return wait_for('the server to answer', sub {
			my ($status, $out) = $node->psql('postgres',
				"SELECT missing, state FROM message_bus.upload_status($upload)");

			return $status == 0 && $out;
		});
}

sql("CREATE TABLE want AS SELECT sha256(string_agg(CASE WHEN n = $parts THEN chunk(n, 777) ELSE chunk(n) END, ''::bytea ORDER BY n)) AS sha256 FROM generate_series(0, $parts) AS n");
$upload = sql("SELECT message_bus.upload_begin('up', size => $size, transaction_id => 'again')");

my @kinds = ('client', 'backend', 'client', 'postmaster', 'client');
my $kills = 0;
my $lost = 0;
my $again = 0;

while ((my $said = missing()) !~ /^\{\}/)
{
	my @missing = map { $_ / PART } $said =~ /(\d+)/g;
	my $n = $missing[ rand @missing ];
	my $two = $n + 2 <= $parts && rand() < 0.5;
	my $bytes = bytes_of($n) . ($two ? ' || ' . bytes_of($n + 1) : '');

	$lost += grep { $acked{$_} } @missing;
	my $run = running("SELECT message_bus.upload_append($upload, "
		  . $n * PART . ", $bytes)");
	my $killed = @kinds && rand() < 0.6 ? shift @kinds : '';
	if ($killed)
	{
		kill_some($killed, $run);
		$kills++;
	}
	if (defined done($run))
	{
		$acked{$n} = 1;
		$acked{ $n + 1 } = 1 if $two;
	}
	elsif (!$killed)
	{
		# who was killed may still be at it
		die $run->{err} if $run->{err} !~ /another transaction|starting up|recovery|terminat|shutting|Connection refused|No such file/i;
		die $run->{err} if $again++ > 200;
	}
}
is($lost, 0, 'what was acknowledged is there');
cmp_ok($kills, '>=', 3, 'something was killed');
is(sql("SELECT message_bus.upload_begin('up', size => $size, transaction_id => 'again') = $upload"),
	't', 'the client finds its upload again');

# the commit, killed likewise
my $id = '';
my @ends = ('client', 'backend', 'postmaster');

while ($id eq '')
{
	missing();
	my $run = running("SELECT id FROM message_bus.upload_commit($upload, sha256 => (SELECT sha256 FROM want))");

	kill_some(shift @ends, $run) if @ends;
	$id = done($run) // '';
}
is(sql("SELECT id FROM message_bus.upload_commit($upload)"),
	$id, 'a commit that is repeated has the same id');
is( sql("SELECT count(*), min(m.id) = $id, min(m.size) = $size, bool_and(m.sha256 = want.sha256) FROM message_bus.messages m, want WHERE channel = 'up'"),
	'1|t|t|t',
	'there is one message');
is( sql("SELECT sha256(string_agg(message_bus.get_bytes($id, n * 1000000, 1000000), ''::bytea ORDER BY n)) = (SELECT sha256 FROM want) FROM generate_series(0, $size / 1000000) AS n"),
	't',
	'its bytes are those that were sent');

# ----------
# Two at a time
# ----------

# neither sees the part of the other, and the commit has little to read
$upload = sql("SELECT message_bus.upload_begin('up', size => 16 * 262144)");
for (my $n = 0; $n < 16; $n += 2)
{
	my @two = map { running("SELECT message_bus.upload_append($upload, $_ * 262144, chunk($_))") } $n, $n + 1;

	defined done($_) || die $_->{err} foreach @two;
}
cmp_ok(sql("SELECT hashed_to / 262144 FROM message_bus.upload_status($upload)"),
	'>=', 13, 'what came in parallel is hashed while it comes');
cmp_ok(sql("SELECT count(*) FROM message_bus.upload_hash WHERE body = $upload"), '<=', 2, 'of which the last notes are kept');
is(sql("SELECT id > 0 FROM message_bus.upload_commit($upload, sha256 => (SELECT sha256(string_agg(chunk(n), ''::bytea ORDER BY n)) FROM generate_series(0, 15) AS n))"),
	't', 'rightly');

# ----------
# By psql alone
# ----------

my $examples = "$ENV{MBUS_TREE}/examples";
my $file = $node->basedir . '/file';

sql(q{SELECT message_bus.create_channel('files', ttl => '1 hour')});
{
	my $content = join('', map { pack('N', $_ * 2654435761 % 4294967296) } 1 .. 1_300_001) . 'end';

	append_to_file($file, $content);
	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	local $ENV{PGDATABASE} = 'postgres';

	# some of it was sent before
	my $sum = sql("SELECT encode(sha256(pg_read_binary_file('$file')), 'hex')");
	my $begun = sql("SELECT message_bus.upload_begin('files', size => " . length($content) . ", sha256 => '$sum', transaction_id => 'upload of $sum')");
	sql("SELECT message_bus.upload_append($begun, 0, pg_read_binary_file('$file', 0, 1048576))");
	my ($said, $wrong);
	ok(IPC::Run::run(['sh', "$examples/upload.sh", $file, 'files'], '>', \$said, '2>', \$wrong),
		'examples/upload.sh goes on');
	is($wrong, "upload $begun: 1048576 of " . length($content) . " bytes are there\n", 'and says so');
	chomp $said;
	is(sql("SELECT message_id FROM message_bus.upload_status($begun)"), $said, 'with the upload that was begun');
	ok(IPC::Run::run(['sh', "$examples/download.sh", $said, "$file.back"], '>', \my $out, '2>', \$wrong),
		'examples/download.sh reads it');
	ok(slurp_file("$file.back") eq $content, 'the same bytes');
}

# ----------
# Space comes back
# ----------

# gone waits until the store of an upload has gone.
sub gone
{
	my ($number) = @_;

	return wait_for('the store to go', sub {
			return sql("SELECT to_regclass('message_bus.part_' || ($number >> 20)) IS NULL") eq 't';
		});
}

$upload = sql("SELECT message_bus.upload_begin('up', size => 3 * 262144 * 4)");
sql("SELECT message_bus.upload_append($upload, n * 262144, chunk(n)) FROM generate_series(0, 7) AS n");
is(sql("SELECT own, received FROM message_bus.uploads WHERE upload = $upload"),
	't|2097152', 'it has a store of its own');
is(sql("SELECT message_bus.upload_abort($upload)"), 't', 'it is aborted');
ok(gone($upload), 'and its space comes back');
is(sql('SELECT count(*) FROM message_bus.uploads'),
	'0', 'with all that counted for it');

# ----------
# Expiry
# ----------

# own: after its last part; shared: after its begin
my $own = sql("SELECT message_bus.upload_begin('up')");
my $shared = sql("SELECT message_bus.upload_begin('up', size => 262145)");
my $ended = sql("SELECT message_bus.upload_begin('up', size => 1)");
sql("SELECT message_bus.upload_append($ended, 0, 'x'), message_bus.upload_append($own, 0, chunk(0))");
my $ended_id = sql("SELECT id FROM message_bus.upload_commit($ended)");
$node->append_conf('postgresql.conf', "message_bus.upload_ttl = '1s'\n");
$node->reload;
ok(gone($own), 'an upload that nobody goes on with goes with its store');
sql_fails($node, 'postgres', "SELECT message_bus.upload_append($own, 262144, chunk(1))",
	'55000', qr/does not exist/, 'there is none any more');
sql_fails($node, 'postgres', "SELECT message_bus.upload_append($shared, 0, chunk(0))",
	'55000', qr/(has expired|does not exist)/, 'one that shares its store has expired');
ok( wait_for('the rows to go', sub {
			sql('SELECT message_bus.expire()');
			return sql("SELECT count(*) FROM message_bus.upload") eq '0'
			  && sql("SELECT count(*) FROM message_bus.upload_end") eq '0';
		}),
	'rows of what has ended go');
sql_fails($node, 'postgres', "SELECT message_bus.upload_commit($ended)",
	'55000', qr/does not exist/, 'so a commit is repeated for a while only');
is(sql("SELECT size FROM message_bus.get($ended_id)"), '1', 'the message stays');
$node->append_conf('postgresql.conf', "message_bus.upload_ttl = '1d'\n");
$node->reload;

# ----------
# One transaction of many parts
# ----------

my ($peak, $locks, $back, $slices, $same) = split /\|/, sql(q{
	CREATE FUNCTION peak() RETURNS int LANGUAGE sql AS
		$$ SELECT substring(pg_read_file('/proc/self/status') FROM 'VmHWM:\s+(\d+) kB')::int $$;
	CREATE TABLE told (peak int, locks int, sent int, slices int, same boolean);
	DO $$
	DECLARE
		number bigint := message_bus.upload_begin('up', size => 75 * 4 * 262144);
		part bytea := chunk(1);
		before int;
		made bigint;
		n int := 0;
	BEGIN
		part := part || part || part || part;
		PERFORM message_bus.upload_append(number, 74 * 1048576, part);
		before := peak();
		-- from the end on: no state is known
		FOR i IN REVERSE 73 .. 0 LOOP
			PERFORM message_bus.upload_append(number, i::bigint * 1048576, part);
		END LOOP;
		INSERT INTO told SELECT peak() - before, count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory';
		WHILE made IS NULL LOOP
			made := (message_bus.upload_commit(number)).id;
			n := n + 1;
		END LOOP;
		UPDATE told SET sent = peak() - before, slices = n,
			same = (SELECT m.size = 75 * 1048576 FROM message_bus.messages m WHERE m.id = made);
	END $$;
	SELECT peak, locks, sent, slices, same FROM told;
});
cmp_ok($peak, '<', 32 * 1024, "appends take little memory ($peak kB)");
cmp_ok($back, '<', 32 * 1024, "the commit, too ($back kB)");
cmp_ok($locks, '<=', 260, "few locks ($locks)");
is($same, 't', "and there is a message, after $slices calls");

$node->stop;
done_testing();
