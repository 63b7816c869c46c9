# tests/t/026_numbers_last.t
#
# Numbers of segments last: what clients do opens few, by a rule whose worst
# case is computed here from the settings; and what is said when they run out.

use strict;
use warnings;

use MessageBus::Delivery;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

my $node = bus_node('last', conf => "message_bus.worker_interval = 100ms\n");

# sql returns what a statement returns.
sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# opened returns how many segments something has opened.
sub opened
{
	my ($function) = @_;
	my $query = 'SELECT segments_opened FROM message_bus.worker_status';
	my $before = sql($query);

	$function->();
	return sql($query) - $before;
}

create_bus($node);

# the worst case: extension/state/pace.h tells the two other numbers
my %pace;
open(my $pace, '<', "$ENV{MBUS_TREE}/extension/state/pace.h") || die $!;
while (<$pace>)
{
	$pace{$1} = $2 if /^#define MBUS_PACE_(\w+)\s+(\d+)/;
}
close($pace);
my $interval = sql(
	q{SELECT setting FROM pg_settings WHERE name = 'message_bus.segment_interval'}
);
my $ordinals = (1 << 24) - 1;
my $year = 365.25 * 86400;
my $most = ($pace{SERIES} + 1) * $year / $interval;
note sprintf('at most %d segments a year: the numbers last for %.1f years',
	$most, $ordinals / $most);
cmp_ok($ordinals / $most, '>', 30, 'numbers last for decades, by the settings');
cmp_ok($pace{BURST} * 365, '<', $most / 2, 'also with a start each day');

# a second client's time to live of a moment, again and again
sql(q{SELECT message_bus.create_channel('moment', ttl => '1 second');
	SELECT message_bus.create_channel('years', ttl => '20 years');
	SELECT message_bus.publish('moment', '1'), message_bus.publish('years', '1', ttl => '1 ms')});
is( opened(
		sub {
			for (1 .. 12)
			{
				sql(q{SELECT message_bus.publish('moment', '1', ttl => '100 ms')});
				sleep 1.5;
			}
		}),
	0,
	'a segment whose messages have all expired goes on');
is(sql(q{SELECT count(*) FROM message_bus.peek('moment')}),
	0, 'and shows nothing of them');

# a channel that goes from one time to live to another
sql(q{SELECT message_bus.create_channel('flips', ttl => '5 minutes');
	SELECT message_bus.create_subscription('flips', 's')});
my $flips = 300;
my $opened = opened(
	sub {
		for my $i (1 .. $flips)
		{
			my $ttl = $i % 2 ? '2 hours' : '5 minutes';

			sql(qq{SELECT message_bus.alter_channel('flips', ttl => '$ttl');
				SELECT message_bus.publish('flips', '$i')});
		}
	});
cmp_ok($opened, '>', 50, 'a channel of another TTL gets a segment of its series');
cmp_ok($opened, '<=', $pace{BURST} + 3, 'but not without end');
is( sql(q{SELECT bool_and(n = r) AND count(*) = 300 FROM (SELECT payload::text::int AS n,
		row_number() OVER (ORDER BY id) AS r FROM message_bus.peek('flips', max_messages => 1000)) m}),
	't',
	'its messages stay in order');
is( claim_all($node, 'flips'),
	join(' ', map { "$_:1" } 1 .. $flips),
	'and all come');

# so it is with retention
sql(q{SELECT message_bus.create_channel('keeps', ttl => '5 minutes');
	SELECT message_bus.create_subscription('keeps', 's')});
$opened = opened(
	sub {
		for my $i (1 .. 20)
		{
			my $retention = $i % 2 ? 'acked' : 'ttl';

			sql(qq{SELECT message_bus.alter_channel('keeps', retention => '$retention');
				SELECT message_bus.publish('keeps', '$i')});
		}
	});
cmp_ok($opened, '<=', 10,
	'with another retention one for each series that it is given');
is(claim_all($node, 'keeps'), join(' ', map { "$_:1" } 1 .. 20), 'and all come');

# expire() has used up what may be closed out of turn
$opened = opened(
	sub {
		for (1 .. 20)
		{
			sql(q{SELECT message_bus.publish('years', '1', ttl => '1 ms')});
			sql(q{SELECT message_bus.expire()});
		}
	});
cmp_ok($opened, '<=', 2, 'expire() leaves young segments open then');

# older segments close
$node->append_conf('postgresql.conf', 'message_bus.segment_interval = 0');
$node->reload;
sql(q{SELECT message_bus.publish('years', '1', ttl => '1 ms')});
wait_for('a segment to go', sub { sql(q{SELECT message_bus.expire()}) > 0 });
pass('and closes others');

# the end: a warning at 80 percent, an error behind the last
$node->stop;
$node->append_conf('postgresql.conf', 'message_bus.segment_max_rows = 16');
$node->start;
is(sql(q{SELECT warning IS NULL FROM message_bus.worker_status}) || 't',
	't', 'no warning before');
sql(q{UPDATE message_bus.server_state SET next_segment = 14000000 << 5});
$node->restart;
bus_ready($node);
like(sql(q{SELECT warning FROM message_bus.worker_status}),
	qr/has used 83\.4 % of its segment numbers/, 'a warning at 80 percent');
wait_for(
	'the log',
	sub {
		slurp_file($node->logfile) =~
		  /WARNING:  message_bus has used 83\.4 % of its segment numbers/;
	});
pass('in the log, too');
sql(q{UPDATE message_bus.server_state SET next_segment = 16777215 << 5});
$node->restart;
bus_ready($node);
my $last = sql(q{SELECT message_bus.publish('default', '1')});
is($last >> 29, 16777215, 'the last number is used');
cmp_ok($last, '<', 1 << 53, 'its ids are below 2^53');
sql_fails(
	$node,
	'postgres',
	q{SELECT message_bus.publish('default', '1') FROM generate_series(1, 20)},
	'55000',
	qr/used up its segment numbers/,
	'behind it publishing is refused by name');
is( sql("SELECT count(*) > 0 FROM message_bus.get($last)"),
	't', 'and what is there can be read');

# leases: at the start of the last epoch of an ordinal, and over it
my $leases = bus_node('leases', conf => "message_bus.leases_per_epoch = 16\n");
create_bus($leases);
$leases->safe_psql('postgres', q{
	UPDATE message_bus.server_state SET epoch = (1 << 30) - 3;
	SELECT message_bus.create_channel('c');
	SELECT message_bus.create_subscription('c', 's')});
$leases->restart;
bus_ready($leases);
publish_some($leases, 'c', 100);
my @numbers;
wait_for(
	'a hundred leases',
	sub {
		my ($status, $out, $err) = $leases->psql('postgres',
			q{SELECT lease FROM message_bus.claim('c', 's')});

		push @numbers, $out if $status == 0 && $out ne '';
		return @numbers == 100;
	});
is(join(' ', sort { $a <=> $b } @numbers), "@numbers", 'leases grow');
my %epoch = map { ((($_ >> 33) << 11) | (($_ >> 17) & 2047)) => 1 } @numbers;
cmp_ok(scalar(keys %epoch), '>=', 6, 'over several epochs');
my %ordinal = map { ($_ >> 33) => 1 } @numbers;
is(scalar(keys %ordinal), 2, 'and two ordinals');
is( $leases->safe_psql(
		'postgres', "SELECT sum(message_bus.ack(l)) FROM unnest(ARRAY["
		  . join(',', @numbers) . "]) AS l"),
	100,
	'all can be acked');

# DROP, restart and CREATE within a second repeat no epoch
my %seen;
my $repeated = 0;
foreach my $round (1 .. 4)
{
	my $epoch;

	$leases->safe_psql('postgres', 'DROP EXTENSION message_bus');
	$leases->restart('immediate') if $round % 2;
	$leases->safe_psql('postgres', 'CREATE EXTENSION message_bus');
	bus_ready($leases);
	$epoch = $leases->safe_psql('postgres',
		'SELECT epoch FROM message_bus.server_state');
	$repeated++ if $seen{$epoch}++;
}
is($repeated, 0, 'nor does an extension that is made anew');

$_->stop foreach $node, $leases;
done_testing();
