# tests/t/080_log.t
#
# The log: others' code judges its checkpoints, proofs and consistency while
# it grows.  log_verify is that code, of Go's module checksum database.

use strict;
use warnings;

use MIME::Base64;
use MessageBus::Log;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $sizes = 200;
my $node = bus_node('log',
	conf => "message_bus.log = on\nmessage_bus.log_interval = 10ms\n"
	  . "message_bus.log_origin = 'example.com/bus'\n");

sub query { return $node->safe_psql('postgres', $_[0]) }

plan skip_all => 'there is no Go with golang.org/x/mod'
  if !log_judge_built();

create_bus($node);
query(q{SELECT message_bus.create_channel('load')});

# grows, by random sizes
srand($ENV{LOG_SEED} // 4711);
my (@cases, $key, @seen);
foreach my $round (1 .. $sizes)
{
	my $n = $round % 20 == 0 ? 2000 : 1 + int rand 40;

	query("SELECT count(message_bus.publish('load', to_json(i))) FROM generate_series(1, $n) AS i");
	log_covered($node);
	$key //= query('SELECT message_bus.audit_key()');
	my ($size, $note) = split /\|/,
	  query('SELECT (SELECT max(size) FROM message_bus.log_checkpoint), '
		  . of_base64(q{message_bus.audit_checkpoint()::bytea}));
	push @seen, $size;
	push @cases, "checkpoint $key $note";
}
like($key, qr{^example\.com/bus/[0-9a-f-]{36}\+[0-9a-f]{8}\+}, 'the key has the log\'s name');
cmp_ok($seen[-1], '>', 20000, 'the log has grown');
is_deeply([ grep { $_ ne 'ok' } log_judged(@cases) ], [], "the checkpoints of $sizes sizes are signed");

# consistency, of each with the next and with any other
my @consistency = map {
	my ($old, $new) = @$_;
	"consistency $old $new "
	  . query("SELECT string_agg(" . of_base64('h') . ", ' ') FROM message_bus.audit_consistency($old, $new) AS h")
  } map { [ $seen[ $_ - 1 ], $seen[$_] ], [ sort { $a <=> $b } $seen[ rand @seen ], $seen[ rand @seen ] ] } 1 .. $#seen;
my @verdicts = log_judged(@cases, @consistency);
is_deeply([ grep { $_ ne 'ok' } @verdicts ], [], 'each is the beginning of those behind it');

# inclusion, of messages anywhere
my @proofs = map { "proof $key $_" } split /\n/,
  query('SELECT ' . of_base64('message_bus.audit_proof(id)::bytea')
	  . ' FROM (SELECT id FROM message_bus.messages ORDER BY hashtext(id::text) LIMIT 300) AS m');
is(scalar @proofs, 300, 'there are proofs');
is_deeply([ grep { $_ ne 'ok' } log_judged(@proofs) ], [], 'what was published is in the log');

# tampered ones
my @tampered;
foreach my $proof (@proofs[ 0 .. 19 ])
{
	my ($word, $with, $text) = split / /, $proof;
	my $raw = decode_base64($text);
	my @line = split /\n/, $raw, -1;

	# the entry, the index, a hash, the size, the root, the signature in turn
	my $kind = @tampered % 6;
	my ($blank) = grep { $line[$_] eq '' } 0 .. $#line;
	if ($kind == 0)
	{
		my $entry = decode_base64(substr $line[1], 6);
		$entry =~ s/^size .*$/size 1000/m;
		$line[1] = 'extra ' . encode_base64($entry, '');
	}
	elsif ($kind == 1) { $line[2] =~ s/(\d+)/$1 + 1/e }
	elsif ($kind == 2)
	{
		my $hash = decode_base64($line[3]);
		substr($hash, 7, 1) ^= "\1";
		$line[3] = encode_base64($hash, '');
	}
	elsif ($kind == 3) { $line[ $blank + 2 ]-- }
	elsif ($kind == 4) { $line[ $blank + 3 ] = encode_base64('x' x 32, '') }
	else
	{
		$line[ $blank + 5 ] =~ s/^(\S+ \S+ )(\S+)$/$1/;
		my $signature = decode_base64($2);
		substr($signature, 20, 1) ^= "\1";
		$line[ $blank + 5 ] .= encode_base64($signature, '');
	}
	push @tampered, "$word $with " . encode_base64(join("\n", @line), '');
}
is(scalar(grep { /^refused/ } log_judged(@tampered)), 20, 'tampered proofs are refused');
my ($first) = grep { /^consistency (?!(\d+) \1 )\d+ \d+ \S+/ } @consistency;
my @words = split / /, $first;
is_deeply(
	[
		map { s/:.*//r } log_judged(
			@cases,
			join(' ', @words[ 0 .. $#words - 1 ]),
			join(' ', @words[ 0 .. 2 ], reverse @words[ 3 .. $#words ], $words[3]))
	  ]->[ -2 ],
	'refused',
	'a consistency proof that is cut is refused');
$node->stop;
done_testing();
