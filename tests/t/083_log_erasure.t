# tests/t/083_log_erasure.t
#
# Erasure: who has kept entries of the log tries, when their segment has gone,
# to find out what was committed to: with all that is left in a dump and in the
# files of the database.  Before it has gone the same tries succeed.

use strict;
use warnings;

use Digest::SHA qw(sha256 sha256_hex hmac_sha256);
use File::Find;
use MessageBus::Log;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('log_erasure',
	conf => "message_bus.log = on\nmessage_bus.log_interval = 10ms\n"
	  . "message_bus.segment_interval = 0\nmessage_bus.log_keep = 1d\n");

sub query { return $node->safe_psql('postgres', $_[0]) }

# what is known of the message and of what became of it, by name of its line
my %value = (
	payload => '{"diagnosis": "Zx9-payload"}',
	subject => 'ada.Zx9-subject@example.com',
	key => 'patient Zx9-key',
	transaction => 'order-Zx9-transaction',
	headers => '{"trace": "Zx9-headers"}',
	reason => 'no bed, Zx9-reason');

create_bus($node);
query(q{SELECT message_bus.create_channel('erase', ttl => '10 seconds', backoff => '0', backoff_max => '0');
	SELECT message_bus.create_subscription('erase', 's')});
my $id = query(qq{SET request.jwt.claims = '{"sub": "$value{subject}"}';
	SELECT message_bus.publish('erase', '$value{payload}', headers => '$value{headers}', key => '$value{key}', transaction_id => '$value{transaction}')});
query(qq{SET request.jwt.claims = '{"sub": "$value{subject}"}';
	SELECT message_bus.nack(lease, reason => '$value{reason}') FROM message_bus.claim('erase', 's');
	SELECT message_bus.record_event($id, 'accessed', clock_timestamp());
	SELECT message_bus.ack(lease) FROM message_bus.claim('erase', 's')});
my $segment = $id >> 24;

# more with the same, so that they are common values to ANALYZE
query(qq{SET request.jwt.claims = '{"sub": "$value{subject}"}';
	SELECT count(message_bus.publish('erase', '$value{payload}', headers => '$value{headers}', key => '$value{key}')) FROM generate_series(1, 10);
	SELECT message_bus.nack(lease, reason => '$value{reason}', delay => '1 minute') FROM message_bus.claim('erase', 's', batch => 10) GROUP BY lease});

# the entries that somebody has kept
my @entries;
foreach my $kind (qw(message failure access ack))
{
	my $number = $kind eq 'message' ? $id
	  : query("SELECT no FROM message_bus.audit_log WHERE kind = '$kind' AND message_id = $id");
	my $entry = pack 'H*', query("SELECT encode(message_bus.audit_entry($number, '$kind'), 'hex')");
	my %line = $entry =~ /^(payload|subject|key|transaction|headers|reason) ([0-9a-f]{64})$/mg;

	push @entries, { kind => $kind, number => $number, line => { map { $_ => pack 'H*', $line{$_} } keys %line } };
}
is(join(' ', map { my $entry = $_; "$entry->{kind}: " . join(',', sort keys %{ $entry->{line} }) } @entries),
	'message: headers,key,payload,subject,transaction failure: reason,subject access: subject ack: subject',
	'the entries commit to what is known');

# ----------
# What is left
# ----------

# left returns bytes that are left: what a dump has, the files of the bus's
# tables and indexes, all other files but WAL.
sub left
{
	my $data = $node->data_dir;
	my %ours = map { $_ => 1 } split /\n/, query(q{
		WITH tables AS (SELECT c.oid, c.reltoastrelid FROM pg_class c
			WHERE relnamespace = 'message_bus'::regnamespace AND relkind = 'r')
		SELECT DISTINCT pg_relation_filepath(f) FROM (
			SELECT oid FROM tables UNION ALL SELECT reltoastrelid FROM tables
			UNION ALL SELECT indexrelid FROM pg_index
				WHERE indrelid IN (SELECT oid FROM tables UNION ALL SELECT reltoastrelid FROM tables)) AS x (f)
		WHERE f <> 0});
	my %left = (dump => '', ours => '', others => '');

	query('CHECKPOINT');
	# with every table: also those that an ordinary dump leaves out
	foreach my $table (split /\n/, query(q{SELECT format('message_bus.%I', relname) FROM pg_class
		WHERE relnamespace = 'message_bus'::regnamespace AND relkind = 'r'}))
	{
		$left{dump} .= query("COPY $table TO STDOUT") . "\n";
	}
	find({ no_chdir => 1, wanted => sub {
		my $path = $File::Find::name;
		my $name = substr $path, length($data) + 1;

		$File::Find::prune = 1 if -d $path && $name eq 'pg_wal';
		return unless -f $path;
		open(my $fh, '<:raw', $path) or return;	# it has gone meanwhile
		local $/;
		$left{ $ours{$name} ? 'ours' : 'others' } .= <$fh> // '';
	} }, $data);
	return \%left;
}

# literally returns which of the values are there as they are.
sub literally
{
	my ($left) = @_;

	return join ' ', grep { my $name = $_; grep { index($_, "Zx9-$name") >= 0 } values %$left } sort keys %value;
}

# ----------
# Tries
# ----------

sub salt { return substr sha256("$_[0]$_[1]"), 0, 16 }

# opens tells whether a salt opens a line of an entry with the true value.
sub opens
{
	my ($entry, $name, $salt) = @_;
	my $true = $name eq 'payload' ? sha256($value{payload}) : $value{$name};

	return sha256("$salt$true") eq $entry->{line}{$name};
}

# by_secret returns the lines that a secret opens.
sub by_secret
{
	my ($secret) = @_;
	my @lines;

	foreach my $entry (@entries)
	{
		my $key = hmac_sha256("$entry->{kind} $entry->{number}", $secret);

		push @lines, map { "$entry->{kind} $_" } grep { opens($entry, $_, salt($key, $_)) } sort keys %{ $entry->{line} };
	}
	return join ', ', @lines;
}

# found tries all 32 and 16 bytes of what is given, as a secret, the key of an
# entry, and a salt; it returns the first that opens a line, and what it opens.
# Random bytes have hardly a zero more than twice, and some above 127: the rest
# is left out.
sub found
{
	my ($bytes) = @_;
	my %seen;

	for (my $at = 0; $at + 16 <= length $bytes; $at++)
	{
		my $short = substr $bytes, $at, 16;

		if (($short =~ tr/\0//) > 2)
		{
			$at += 8 if substr($short, 8) eq "\0" x 8;
			next;
		}
		next if ($short =~ tr/\x80-\xff//) < 2 || $seen{$short}++;
		my $long = substr $bytes, $at, 32;
		if (length $long == 32)
		{
			my $key = hmac_sha256("message $id", $long);

			return 'secret: ' . by_secret($long) if opens($entries[0], 'key', salt($key, 'key'));
		}
		foreach my $entry (@entries)
		{
			my ($first) = sort keys %{ $entry->{line} };

			return "key of $entry->{kind}" if opens($entry, $first, salt($long, $first));
			foreach my $name (keys %{ $entry->{line} })
			{
				return "salt of $name in $entry->{kind}" if opens($entry, $name, $short);
			}
		}
	}
	return '';
}

# in_hex returns the bytes that a text has in hex, as bytea and uuids are shown.
sub in_hex
{
	my ($text) = @_;

	$text =~ s/(?<=[0-9a-f])-(?=[0-9a-f])//g;
	# the two uuids of a secret stand beside each other
	$text =~ s/(?<=[0-9a-f])\t(?=[0-9a-f])//g;
	return join "\0" x 16, map { pack 'H*', $_ } $text =~ /((?:[0-9a-f]{2}){16,})/g;
}

my $all = 'secret: message headers, message key, message payload, message subject, message transaction, '
  . 'failure reason, failure subject, access subject, ack subject';

log_covered($node);
# as autovacuum may do at any time, or somebody by hand: no value in statistics,
# whose old rows stay in the file for long
query('ANALYZE');
my $before = left();
my $secret = pack 'H*', query("SELECT replace(first::text || second::text, '-', '') FROM message_bus.secret_$segment");
my $key = hmac_sha256("message $id", $secret);
is(literally($before), 'headers key payload reason subject transaction', 'all that is known is in what there is');
is(found(in_hex($before->{dump})), $all, 'there is a secret in the tables, which opens every line');
is(found($before->{ours}), $all, 'and in the files');
is(found("x${key}yz"), 'key of message', 'a key would be found');
is(found('x' . salt($key, 'reason') . 'yz'), '', 'what is none would not');
is(found('x' . salt($key, 'transaction') . 'yz'), 'salt of transaction in message', 'but a salt');

wait_for('the segment to go', sub { query('SELECT message_bus.expire()'); query("SELECT count(*) FROM message_bus.segment WHERE segment_no = $segment") eq '0' });
my $after = left();
is(literally($after), '', 'when the segment has gone nothing of it is in any table or file');
is(found(in_hex($after->{dump})), '', 'nothing in the tables opens a line');
is(found($after->{ours}), '', 'nor do 32 or 16 bytes anywhere in the files of the bus');
is((grep { index($_, $secret) >= 0 || index($_, substr $secret, 0, 16) >= 0 } values %$after) + 0, 0, 'the secret is in no other file');
cmp_ok(query("SELECT sum(n) FROM message_bus.log_run WHERE segment_no = $segment"), '>=', 4, 'the log still has its entries');
$node->stop;
done_testing();
