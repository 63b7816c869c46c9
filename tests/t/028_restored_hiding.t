# tests/t/028_restored_hiding.t
#
# What a restore has brought and is not settled is hidden, and nothing else:
# many segments of another node, filled in an order of their own, beside a bus
# whose own segments lie between them and are in use.

use strict;
use warnings;

use MessageBus::Delivery;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $many = 22;
my $old = bus_node('old',
	conf => "message_bus.node = 2\nmessage_bus.segment_max_rows = 16\n"
	  . "message_bus.worker_interval = 20ms\n");
my $new = bus_node('new',
	conf => "message_bus.node = 1\nmessage_bus.worker_interval = 200ms\n");
my $dump = $old->basedir . '/dump';

# query returns what a query returns.
sub query
{
	my ($sql) = @_;

	return $new->safe_psql('postgres', $sql);
}

# restore runs pg_restore for the lines of the list that match.
sub restore
{
	my ($name, $pattern, @option) = @_;
	my $list = $old->basedir . '/list';
	my ($out) = run_command([ 'pg_restore', '--list', $dump ]);

	open my $file, '>', $list or die "$list: $!\n";
	print $file map { "$_\n" } grep { /$pattern/ } split /\n/, $out;
	close $file;
	command_ok(
		[
			'pg_restore', '--exit-on-error', @option, "--use-list=$list",
			'--host', $new->host, '--port', $new->port,
			'--dbname', 'postgres', $dump
		],
		$name);
	return;
}

# claimed claims, acks, and returns what came.
sub claimed
{
	my ($channel, $wait) = @_;

	return query(
		qq{WITH d AS MATERIALIZED (SELECT * FROM message_bus.claim('$channel',
			's', 1000, wait => '$wait')),
		a AS MATERIALIZED (SELECT message_bus.ack(lease, array_agg(id)) FROM d
			GROUP BY lease)
		SELECT string_agg(payload::text, ' ' ORDER BY id) FROM d, a});
}

# opened returns how many segments were opened.
sub opened
{
	return query(q{SELECT value::int FROM message_bus.metrics
		WHERE metric LIKE '%segments_opened_total'});
}

# come claims until some have come.
sub come
{
	my ($channel, $number) = @_;
	my @came;

	wait_for(
		"$number of $channel",
		sub {
			push @came, split ' ', claimed($channel, '1 s');
			return @came >= $number;
		});
	return join ' ', sort { $a <=> $b } @came;
}

# Many segments of node 2; of each the first message is acknowledged.
create_bus($old);
$old->safe_psql('postgres',
	q{SELECT message_bus.create_channel('c', ttl => '3 days');
	SELECT message_bus.create_subscription('c', 's')});
my @segments;
my $last = 0;

while (@segments < $many)
{
	publish_some($old, 'c', 60);
	@segments = split /\n/, $old->safe_psql('postgres',
		q{SELECT DISTINCT id >> 24 FROM message_bus.message
		JOIN message_bus.channel USING (channel_id) WHERE name = 'c' ORDER BY 1});
}
$old->safe_psql('postgres',
	q{SELECT count(message_bus.ack(lease, ARRAY[id])) FROM (SELECT *,
		row_number() OVER (PARTITION BY id >> 24 ORDER BY id) AS nth
		FROM message_bus.claim('c', 's', 10000)) d WHERE nth = 1});
my %rows = map { split /\|/ } split /\n/, $old->safe_psql('postgres',
	q{SELECT id >> 24, count(*) - 1 FROM message_bus.message
	JOIN message_bus.channel USING (channel_id) WHERE name = 'c' GROUP BY 1});
command_ok(
	[
		'pg_dump', '--format=custom', "--file=$dump", '--host',
		$old->host, '--port', $old->port, 'postgres'
	],
	'pg_dump');
$old->stop;

# A bus of node 1 whose segment is among them, with a lease that is held.
$new->safe_psql(
	'postgres', q{
	BEGIN;
	CREATE EXTENSION message_bus;
	UPDATE message_bus.server_state SET next_segment = 18 << 5;
	COMMIT});
bus_ready($new);
query(q{SELECT message_bus.drop_channel('default');
	SELECT message_bus.create_channel('live', ttl => '3 days');
	SELECT message_bus.create_subscription('live', 's');
	SELECT message_bus.publish('live', to_json(i)) FROM generate_series(1, 3) i});
my ($lease, $id) = split /\|/,
  query(q{SELECT lease, id FROM message_bus.claim('live', 's', 1,
		lease_for => '1 hour')});
my $live = $id >> 24;
ok( $segments[0] < $live && $live < $segments[-1],
	"segment $live is among those of the dump");

# The schema: nothing of it is filled.
restore('the tables', '.', '--section=pre-data');
restore('channels and subscriptions',
	'(TABLE DATA|SEQUENCE SET) message_bus (channel|subscription)',
	'--section=data');
restore('the indexes', 'message_bus \w+_\d+', '--section=post-data');
query('SELECT message_bus.expire()') for 1 .. 2;
query(qq{SELECT message_bus.ack($lease, ARRAY[$id]::bigint[])});
is(query(qq{SELECT count(*) FROM message_bus.ack WHERE lo = $id}),
	1, 'an ack of what is here is written');
is(claimed('live', '0'), '2 3', 'what is here is delivered');
query(q{SELECT message_bus.publish('live', '4')});
is(come('live', 1), 4, 'and what is published now');

# Some, not the first ones.
my %some = map { $_ => 1 } @segments[ 19, 17 ];

restore("the messages and acks of segment $_",
	"TABLE DATA message_bus (ack|failure|event|secret|message)_$_ ",
	'--section=data')
  foreach @segments[ 19, 17 ];
my $came = come('c', $rows{ $segments[19] } + $rows{ $segments[17] });
is( scalar(split ' ', $came),
	$rows{ $segments[19] } + $rows{ $segments[17] },
	'segments show when they are filled, while those before them are hidden');

# All the rest; what is empty is still there, and was not closed.
my $rest = join '|', grep { !$some{$_} } @segments;
is( query(q{SELECT count(*) FROM pg_class WHERE relname ~ '^message_\d+$'
		AND relnamespace = 'message_bus'::regnamespace}) >= $many,
	1, 'none that is empty has gone');
my $opened = opened();

foreach my $segment (split /\|/, $rest)
{
	restore("segment $segment", "TABLE DATA message_bus \\w+_$segment ",
		'--section=data');
	query('SELECT message_bus.expire()');
	query(q{SELECT message_bus.publish('live', '"beside"')});
}
cmp_ok(opened() - $opened, '<=', 4,
	'publishers need not go to a new segment for each');
like(come('live', scalar(split /\|/, $rest)),
	qr/beside/, 'and lose nothing');
my $left = 0;

$left += $rows{$_} foreach grep { !$some{$_} } @segments;
is(scalar(split ' ', come('c', $left)), $left, 'the rest comes');
query('SELECT message_bus.expire()');
is(claimed('c', '1 s'), '', 'and what was acknowledged does not');
is(come('live', 0) . claimed('live', '0'), '', 'nor what is here again');
is( query(q{SELECT count(*) FROM message_bus.message m JOIN
		message_bus.channel USING (channel_id) WHERE name = 'live'
		AND NOT EXISTS (SELECT FROM message_bus.ack WHERE m.id >= lo AND m.id <= hi)}),
	0, 'all acks of it are there');

# An inserted row that names ids above where publishers of its channel are, and
# below the next number.
my $open = query(q{SELECT message_bus.publish('live', '5') >> 24});

query(q{SELECT message_bus.create_channel('other', ttl => '5 minutes')});
my $above = query(q{SELECT message_bus.publish('other', '1') >> 24});

cmp_ok($above, '>', $open, 'another channel is in a segment above');
query(
	qq{INSERT INTO message_bus.subscription (subscription_id, channel_id, name,
		owner, ordered, start_id)
	SELECT 777, channel_id, 'later', current_user::regrole::oid, false,
		(${above}::bigint << 24) + 1000000
	FROM message_bus.channel WHERE name = 'live'});
wait_for(
	'publishers above it',
	sub {
		query(q{SELECT message_bus.publish('live', '6') >> 24}) > $above;
	});
is( query(q{SELECT payload FROM message_bus.claim('live', 'later', 1,
		wait => '20 s')}),
	6, 'what is published above a start that was inserted is delivered');

$new->stop;
done_testing();
