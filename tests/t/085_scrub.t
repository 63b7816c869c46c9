# tests/t/085_scrub.t
#
# The scrubber: what is damaged behind the bus's back is found, put into
# quarantine and not delivered, while all else is; and it is let out when it
# is right again.  Its place outlives the server, its rate changes while it
# runs, and what goes with its segment goes from quarantine.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('scrub',
	conf => "message_bus.scrub_rate = 0\nmessage_bus.scrub_interval = 1s\n"
	  . "message_bus.worker_interval = 100ms\nautovacuum = off\n"
	  . "message_bus.segment_interval = 0\n");

create_bus($node);
query("SELECT message_bus.create_channel('$_', compression => '$_')")
  foreach qw(none lz4 zstd gzip);

# noise of its own that does not compress, and text that does, in TOAST
my $noise = q{(SELECT string_agg(sha256((%d || ' ' || i)::bytea), '') FROM generate_series(1, 2000) AS i)};
my $mixed = "$noise || convert_to(repeat('some text to be compressed ', 2000), 'UTF8')";
my (%id, %chunks);

$id{"sound $_"} = publish($_, q{'sound'}) foreach qw(none lz4 zstd gzip);
$id{row} = publish('none', q{'in the row'});
$id{toast} = publish('none', sprintf $noise, 1);
$id{chunk} = publish('none', sprintf $noise, 2);
$id{lz4} = publish('lz4', sprintf $mixed, 3);
$id{zstd} = publish('zstd', sprintf $mixed, 4);
$id{gzip} = publish('gzip', sprintf $mixed, 5);
$id{pointer} = publish('none', sprintf $noise, 6);
$id{whole} = publish('zstd', sprintf $noise, 7);
$id{file} = publish('none', q{'bytes that are changed in the file'});
$id{length} = publish('none', q{'a length that is changed in the file'});
$id{behind} = publish('none', q{'behind'});
$id{mended} = publish('none', q{'mended'});

is(query('SELECT messages, bad, found, unread FROM message_bus.scrub()'), '17|0|0|0', 'all are sound');
is(query("SELECT messages, bytes FROM message_bus.scrub('none')"),
	'9|' . query("SELECT sum(size) FROM message_bus.messages WHERE channel = 'none'"),
	'those of a channel are counted');
is(query("SELECT message_bus.scrub_message($id{toast}), message_bus.scrub_message(4)"), 'sound|', 'one is looked at');

# ---- damage, by SQL and in files
query("UPDATE message_bus.message SET payload = 'in the rox' WHERE id = $id{row}");
query("UPDATE message_bus.message SET payload = 'mendex' WHERE id = $id{mended}");
query("UPDATE message_bus.message SET payload = substr(payload, 1, 5000) WHERE id = $id{$_}") foreach qw(zstd gzip);

my $leaf = query("SELECT 'message_bus.message_' || ($id{row} >> 24)");
my $toast = query("SELECT reltoastrelid::regclass FROM pg_class WHERE oid = '$leaf'::regclass");
my @chunk = map { pack 'H*', $_ } split /\n/,
  query("SELECT encode(chunk_data, 'hex') FROM $toast WHERE chunk_seq = 1 ORDER BY chunk_id LIMIT 3");
my ($toast_id) = split /\n/, query("SELECT chunk_id FROM $toast WHERE chunk_seq = 1 ORDER BY chunk_id OFFSET 3 LIMIT 1");
my $toast_oid = query("SELECT '$toast'::regclass::oid");
my ($heap_file, $toast_file) = map { $node->data_dir . '/' . query("SELECT pg_relation_filepath('$_')") } $leaf, $toast;

$node->stop;
change($toast_file, $chunk[0], 100, 'other bytes');
change($toast_file, $chunk[1], -8, pack('l', 77));    # its number
change($toast_file, $chunk[2], -8, pack('l', 77));
change($heap_file, 'bytes that are changed in the file', 6, 'wxyz');
change($heap_file, pack('LL', $toast_id, $toast_oid), 4, pack('L', 77));    # its table
change($heap_file, 'a length that is changed in the file', -1, "\xff");
$node->start;
bus_ready($node);

# ---- a claim that errs over one has it looked at, whatever the rate
wait_for(
	'a claim that goes round what cannot be read',
	sub {
		return $node->psql('postgres', q{SELECT message_bus.claim('lz4', batch => 100)}) == 0;
	});
is(query('SELECT message_id, channel, kind FROM message_bus.quarantined'),
	"$id{lz4}|lz4|unreadable", 'what a claim finds is in quarantine');
until_query('the other was claimed', q{SELECT count(*) = 1 FROM message_bus.leases WHERE channel = 'lz4'});

# ---- the rate, while it runs
is(query('SELECT state FROM message_bus.scrub_status'), '', 'at rate 0 it does not run');
setting('scrub_rate', '1kB');
until_query('it runs', q{SELECT state = 'running' AND rate = 1024 FROM message_bus.scrub_status});
setting('scrub_rate', '1GB');
until_query('it has read all', 'SELECT cycle > 1 AND ended_at IS NOT NULL FROM message_bus.scrub_status');
setting('scrub_rate', '0');

my %kind = map { split /\|/ } split /\n/,
  query('SELECT message_id, kind FROM message_bus.quarantined ORDER BY message_id');
is_deeply(
	\%kind,
	{
		$id{row} => 'checksum', $id{toast} => 'checksum', $id{chunk} => 'unreadable', $id{lz4} => 'unreadable',
		$id{zstd} => 'compression', $id{gzip} => 'compression', $id{file} => 'checksum', $id{length} => 'row',
		$id{mended} => 'checksum', $id{pointer} => 'row'
	},
	'each is found and named, and nothing else');
is(query('SELECT bad, quarantined FROM message_bus.scrub_status'), '10|10', 'the status counts them');
is(query(q{SELECT value FROM message_bus.metrics WHERE metric = 'messages_quarantined_total'}), '10',
	'the metrics count them');
my $log = slurp_file($node->logfile);
is(scalar(() = $log =~ /found message \d+ of channel \d+ damaged/g), 5, 'the log has some of them');
unlike($log, qr/in the rox|wxyz/, 'and no bytes');

# ---- nothing of them is delivered, all else is
like((sql_error("SELECT message_bus.get_bytes($id{$_})"))[0], qr/XX001/, "get: $_")
  foreach qw(row toast chunk lz4 zstd gzip pointer file length);
is(query("SELECT count(*) FROM message_bus.message_bus WHERE id >= $id{'sound none'} AND payload IS NULL"), '16', 'no view fails');
is(query(q{SELECT string_agg(convert_from(payload, 'UTF8'), ', ' ORDER BY id) FROM message_bus.claim_bytes('none', batch => 100)}),
	'sound, behind', 'a claim has the others');
until_query('the damaged are dead, in place',
	q{SELECT count(*) = 7 AND bool_and(kind = 'corrupt' AND dead_letter_id IS NULL) FROM message_bus.dead_letters WHERE channel = 'none'});

# ---- mended
# two index entries of dead rows come before that of the one that lives
query("UPDATE message_bus.message SET transaction_id = 'x' WHERE id = $id{mended};
	UPDATE message_bus.message SET payload = 'mended', transaction_id = NULL WHERE id = $id{mended}");
like((sql_error("SELECT message_bus.get_bytes($id{mended})"))[0], qr/XX001/, 'until it is looked at it stays there');
is(query("SELECT message_bus.scrub_message($id{mended})"), 'sound', 'one that is right again');
is(query("SELECT convert_from(message_bus.get_bytes($id{mended}), 'UTF8')"), 'mended', 'is out');
is(query("SELECT message_bus.redrive('none')"), '1', 'and can be redriven');
is(query(q{SELECT convert_from(payload, 'UTF8') FROM message_bus.claim_bytes('none')}), 'mended', 'and is delivered');

# ---- who may see it
query('CREATE ROLE stranger');
is(query("SET ROLE stranger; SELECT count(*) FROM message_bus.quarantined"), '0', 'a stranger sees none');
is(query("SET ROLE stranger; SELECT message_bus.scrub_message($id{row}) IS NULL, message_bus.is_quarantined($id{row})"),
	't|f', 'nor is he told of one');
is((sql_error("SET ROLE stranger; SELECT message_bus.scrub('none')"))[0], '42501', 'nor may he look');
is((sql_error('SET ROLE stranger; SELECT message_bus.scrub()'))[0], '42501', 'at all');

# ---- what is no damage
is((sql_error("BEGIN; ALTER TABLE message_bus.message ADD COLUMN other int; SELECT message_bus.scrub_message($id{whole})"))[0],
	'55000', 'a column more is none of a message');
is(query('SELECT message_bus.scrub_message(id) IS NULL FROM unnest(ARRAY[0, -1, 9223372036854775807, ' . "(1::bigint << 56) + $id{whole}]) AS id"),
	"t\nt\nt\nt", 'ids that none can have');

# ---- its place is kept
query(q{SELECT message_bus.create_channel('many', compression => 'none')});
query(q{SELECT count(message_bus.publish_batch_bytes('many', ARRAY(SELECT convert_to(repeat('x', 1000), 'UTF8') FROM generate_series(1, 1000)), 'text/plain')) FROM generate_series(1, 5)});
my $middle = query(q{SELECT id FROM message_bus.messages WHERE channel = 'many' ORDER BY id OFFSET 2500 LIMIT 1});
query("UPDATE message_bus.message SET payload = 'other' WHERE id = $middle");
setting('scrub_rate', '1MB');
until_query('it is in the middle', "SELECT state = 'running' AND next_id > $middle FROM message_bus.scrub_status");
setting('scrub_rate', '0');
until_query('it stands still', q{SELECT state = 'off' FROM message_bus.scrub_status});
my $cycle = query('SELECT cycle FROM message_bus.scrub_status');
$node->restart;
bus_ready($node);
until_query('the place is there again', 'SELECT count(*) = 1 FROM message_bus.scrub_status');
is(query("SELECT cycle, state, next_id > $middle, quarantined FROM message_bus.scrub_status"), "$cycle|off|t|10",
	'its place is kept over a restart');
like((sql_error("SELECT message_bus.get_bytes($middle)"))[0], qr/XX001/, 'and the quarantine');

# ---- a session that has not committed keeps no segment back
query(q{SELECT message_bus.create_channel('short', ttl => '3 seconds')});
my $session = $node->background_psql('postgres');
my ($short, $again) = split /\n/, query(q{
	SELECT message_bus.publish('short', '"gone"') AS a, message_bus.publish('short', '"soon"') AS b \gset
	UPDATE message_bus.message SET payload = '"----"' WHERE id IN (:a, :b);
	SELECT :a;
	SELECT :b WHERE message_bus.scrub_message(:b) = 'checksum';
	UPDATE message_bus.message SET payload = '"soon"' WHERE id = :b;});
is($session->query_safe("BEGIN; SELECT message_bus.scrub_message($short), message_bus.scrub_message($again)"),
	'checksum|sound', 'two of another segment, one of which is right again');
until_query('it expires', "SELECT message_bus.expire() >= 0 AND NOT EXISTS (SELECT FROM message_bus.segment WHERE segment_no = $short >> 24)");
setting('scrub_rate', '1GB');
until_query('the scrubber goes on beside it', "SELECT cycle > $cycle + 1 FROM message_bus.scrub_status");
$session->query_safe('COMMIT');
$session->quit;
until_query('what has gone is in no quarantine', "SELECT count(*) = 0 FROM message_bus.quarantine WHERE message_id IN ($short, $again)");
setting('scrub_rate', '0');

# ---- a page that is damaged: all on it is found, and all behind it is read
$leaf = query("SELECT 'message_bus.message_' || ($middle >> 24)");
my $page = query("SELECT count(*) FROM $leaf WHERE (ctid::text::point)[0] = 200 AND channel_id = (SELECT channel_id FROM message_bus.channel WHERE name = 'many')");
cmp_ok($page, '>', 3, 'there is such a page');
my $before = query('SELECT messages, bad FROM message_bus.scrub()');
$heap_file = $node->data_dir . '/' . query("SELECT pg_relation_filepath('$leaf')");
$node->stop;
change($heap_file, '', 200 * 8192, "\xff" x 24);
$node->start;
bus_ready($node);

# an error that is not of what is stored is no answer; one of the disk is, twice
chmod 0, $toast_file or die "$toast_file: $!\n";
is((sql_error("SELECT message_bus.scrub_message($id{whole})"))[0], '42501', 'a file that may not be read is no damage');
chmod 0600, $toast_file;
rename $toast_file, "$toast_file.away" or die "$toast_file: $!\n";
is(query("SELECT message_bus.scrub_message($id{whole})"), 'unreadable', 'one that is not there is');
rename "$toast_file.away", $toast_file or die "$toast_file: $!\n";
is(query("SELECT message_bus.scrub_message($id{whole})"), 'sound', 'until it is there again');

my ($messages, $bad) = split /\|/, $before;
is(query('SELECT messages > 1000, bad, found, unread FROM message_bus.scrub()'), join('|', 't', $bad + $page, $page, 0),
	'what is on a damaged page is unreadable');
is(query("SELECT count(*), bool_and(detail LIKE 'invalid page in block 200 of %') FROM message_bus.quarantined WHERE channel IS NULL AND kind = 'unreadable'"),
	"$page|t", 'and it is said why');

done_testing();

sub query { return $node->safe_psql('postgres', $_[0]) }

sub until_query
{
	my ($what, $sql) = @_;

	ok($node->poll_query_until('postgres', $sql), $what);
}

# sql_error returns the SQLSTATE of a statement's error, "" if there is none.
sub sql_error
{
	my ($sql) = @_;

	$node->psql('postgres', "\\set VERBOSITY sqlstate\n$sql", stderr => \my $err);
	return $err =~ /ERROR:\s+(\w+)/ ? $1 : '';
}

sub setting
{
	my ($name, $value) = @_;

	$node->append_conf('postgresql.conf', "message_bus.$name = $value\n");
	$node->reload;
}

sub publish
{
	my ($channel, $payload) = @_;

	return query("SELECT message_bus.publish_bytes('$channel', $payload, 'application/octet-stream')");
}

# change overwrites bytes of a file, so far from where some bytes stand in it.
sub change
{
	my ($file, $bytes, $offset, $new) = @_;
	my $content = slurp_file($file);
	my $at = index $content, $bytes;

	die "$file has no such bytes\n" if $at < 0;
	open my $out, '+<:raw', $file or die "$file: $!\n";
	seek $out, $at + $offset, 0;
	print {$out} $new;
	close $out or die "$file: $!\n";
}
