# tests/t/058_shares.t
#
# What one who claims, a channel, or a frame that waits may have of what all
# share: who is at his bound is refused by name, and nobody else notices.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = bus_node(
	'shares',
	conf => "message_bus.worker_interval = 100ms\n"
	  . "message_bus.max_leases = 4096\n"
	  . "message_bus.channel_share = 100\n"
	  . "message_bus.holder_share = 75\n"
	  . "message_bus.max_subscriptions = 64\n");

create_bus($node);
$node->safe_psql(
	'postgres', q{
	CREATE ROLE attacker; CREATE ROLE victim; CREATE ROLE third; CREATE ROLE fourth;
	SELECT message_bus.create_channel('c');
	SELECT message_bus.create_channel('calm');
	SELECT message_bus.grant_channel(c, r, 'all')
	FROM unnest('{c,calm}'::text[]) c, unnest('{attacker,victim,third,fourth}'::regrole[]) r;
	SELECT message_bus.create_subscription('c', 's' || i) FROM generate_series(1, 8) i;
	SELECT message_bus.create_subscription('calm', 's');
	SELECT message_bus.publish_batch_bytes(c, array_fill('x'::bytea, ARRAY[3000]))
	FROM unnest('{c,calm}'::text[]) c});

# sql runs statements as the superuser.
sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# relayed gives frames to message_bus.relay(), all as a role, and returns the
# replies in one text.
sub relayed
{
	my ($role, $sockets, @frames) = @_;
	my $array = join(',',
		map { "'\\x01'::bytea || convert_to(\$f\$$_\$f\$, 'UTF8')" } @frames);

	return sql("SET message_bus.relay_role = '$role'; SET lock_timeout = '500ms'; "
		  . "SELECT string_agg(convert_from(substr(frame, 2), 'UTF8'), E'\\n') "
		  . "FROM message_bus.relay('{$sockets}', ARRAY[$array])");
}

# by_socket claims as a socket of a role; how many it got, or the error.
sub by_socket
{
	my ($role, $socket, $channel, $subscription, $batch) = @_;
	my $reply = relayed($role, $socket,
		'{"jsonrpc":"2.0","id":1,"method":"claim","params":{"channel":"'
		  . "$channel\",\"subscription\":\"$subscription\",\"batch\":$batch,"
		  . '"lease_for":"7 days"}}');

	return $reply if $reply =~ /"error"/;
	return scalar(() = $reply =~ /"attempt":/g);
}

# by_sql does so in SQL, where anybody may name himself.
sub by_sql
{
	my ($role, $subject, $channel, $subscription, $batch) = @_;
	my ($status, $out, $err) = $node->psql('postgres',
		"SET ROLE $role; SET request.jwt.claims = '{\"sub\":\"$subject\"}'; "
		  . "SELECT count(*) FROM message_bus.claim('$channel', '$subscription', "
		  . "$batch, lease_for => '7 days')");

	return $status == 0 ? $out : $err;
}

# held tells what the rows of the view say that meet a condition.
sub held
{
	my ($condition, $column) = @_;

	$column ||= 'held';
	return sql("SELECT coalesce(sum($column), 0) FROM message_bus.pools "
		  . "WHERE pool = 'messages' AND $condition");
}

# all_acked ends all leases.
sub all_acked
{
	sql(q{SELECT message_bus.release_lease(lease)
		FROM (SELECT DISTINCT lease FROM message_bus.leases) l});
}

# greedy has one claim what it can get of all of the channel's subscriptions,
# and returns why it got no more.
sub greedy
{
	my ($claim, @who) = @_;
	my $last;

	foreach my $n (1 .. 8)
	{
		do
		{
			$last = $claim->(@who, 'c', "s$n", 1500);
		} while ($last =~ /^\d+$/ && $last > 0);
		return $last if $last =~ /claimed (by|from channel)/;
	}
	return $last;
}

# one socket that takes what it can get
like(
	greedy(\&by_socket, 'attacker', 1),
	qr/"code":-32004.*too many messages are claimed by this session.*"sqlstate":"53400".*holds \d+ messages and may hold \d+, as \\"message_bus.session_share\\" says/s,
	'a socket that holds too much is refused, and told which setting says so');
cmp_ok(held(q{role = 'attacker'::regrole AND session = 1}),
	'<', 1300, 'it has got a part of what its role may have');
is(by_socket('victim', 2, 'c', 's1', 100),
	100, 'another role does not notice, in the same subscription');
is(by_socket('victim', 2, 'calm', 's', 100), 100, 'nor in another channel');
is(by_socket('attacker', 3, 'calm', 's', 100),
	100, 'nor does another socket of the role');

# any number of sockets: all without a token are one
my @sockets = map { greedy(\&by_socket, 'attacker', $_) } 4 .. 12;
like($sockets[-1], qr/too many messages are claimed by (this session|role \\"attacker\\")/,
	'sockets that are opened anew are refused, too');
cmp_ok(
	held(q{role = 'attacker'::regrole AND session IS NULL}),
	'<=',
	held(q{role = 'attacker'::regrole AND session IS NULL}, 'may_hold') + 8 * 8,
	'together they have no more than one may, and what is kept for subscriptions'
);
is(by_socket('victim', 2, 'c', 's8', 50), 50, 'another role does not notice');
is(by_socket('third', 41, 'calm', 's', 30), 30, 'nor one who comes later');
is( sql(q{
		SELECT string_agg(DISTINCT role::text, ' ' ORDER BY role::text) FROM message_bus.pools
		WHERE pool = 'messages' AND role IS NOT NULL AND session IS NULL}),
	'attacker third victim',
	'the view says by whom');

# what is given back is not charged to who had it
all_acked();
is(held('role IS NOT NULL'), 0, 'who has given all back holds nothing');
my $rolled;

$node->psql('postgres', q{
		BEGIN; SET ROLE attacker;
		SELECT count(*) FROM message_bus.claim('c', 's1', 500);
		RESET ROLE;
		SELECT sum(held) FROM message_bus.pools WHERE role = 'attacker'::regrole;
		ROLLBACK;
		SELECT count(*) FROM message_bus.pools WHERE role = 'attacker'::regrole;
		SELECT held FROM message_bus.pools WHERE pool = 'messages' AND subscription = 's1'},
	on_error_die => 1, stdout => \$rolled);
is( $rolled,
	"500\n500\n0\n500",
	'a claim that is rolled back is charged to the subscription alone');
is(by_sql('victim', 'v', 'c', 's1', 500), 500, 'and to who claims it then');
is(held(q{role = 'victim'::regrole AND subject IS NULL}), 500, 'once');
is( held(q{subject = left(encode(sha256('v'), 'hex'), 16)}),
	500, 'a subject is told by its hash');
all_acked();

# in SQL subjects can be made up: they are parts of the role
my @subjects = map { greedy(\&by_sql, 'attacker', "x$_") } 1 .. 9;
like($subjects[-1], qr/53400|too many messages are claimed by (this session|role "attacker")/,
	'subjects that are made up are refused');
cmp_ok(
	held(q{role = 'attacker'::regrole AND subject IS NULL}),
	'<=',
	held(q{role = 'attacker'::regrole AND subject IS NULL}, 'may_hold') + 8 * 8,
	'together they have no more than their role may');
is(by_sql('victim', 'v', 'calm', 's', 100), 100, 'others do not notice');
all_acked();

# many who claim from one channel
sql(q{ALTER SYSTEM SET message_bus.channel_share = 50});
$node->reload;
$node->poll_query_until('postgres', q{SHOW message_bus.channel_share}, '50');
greedy(\&by_sql, $_, 'x') foreach ('attacker', 'third', 'victim');
like(
	greedy(\&by_sql, 'fourth', 'x'),
	qr/too many messages are claimed from channel "c".*message_bus.channel_share/s,
	'a channel that holds too much is refused');
is(by_sql('fourth', 'x', 'calm', 's', 100), 100, 'another one does not notice');
all_acked();
is(held(q{channel IS NOT NULL}), 0, 'a channel that holds nothing is not shown');

# leases that are longer than the channel says
sql(q{SELECT message_bus.alter_channel('calm', max_lease => '1 minute')});
like(by_socket('victim', 2, 'calm', 's', 1),
	qr/"code":-32602.*lease_for must be longer than 0 and at most 60.000 seconds/,
	'a channel bounds its leases');

# one frame of many requests that each wait for another transaction
my $blocker = $node->background_psql('postgres');
my $publish = '{"jsonrpc":"2.0","id":%d,"method":"publish","params":'
  . '{"channel":"%s","payload":1,"transaction_id":"%s"}}';

$blocker->query_safe(q{BEGIN;
	SELECT count(message_bus.publish('c', '1', transaction_id => 't' || i))
	FROM generate_series(1, 60) i});
my $blocked = '[' . join(',', map { sprintf($publish, $_, 'c', "t$_") } 1 .. 60) . ']';
my $free = sprintf($publish, 61, 'calm', 'free');
my $last = sprintf($publish, 62, 'c', 't60');
my $started = time;
my @replies = split /\n/, relayed('victim', '1,1,2,3', $blocked, $blocked, $free, $last);
my $took = time - $started;

cmp_ok($took, '<', 5, sprintf('120 requests that wait hold up a call %.1f s', $took));
is(scalar(() = "@replies[0, 1]" =~ /"code":-32009/g), 120, 'each is refused');
like($replies[0], qr/All requests of a frame wait for others 500 ms at most, of a lane 1000 ms/,
	'and told why');
like($replies[2], qr/"id":61,"result":/, 'what is in nobody\'s way is done');
like($replies[3], qr/-32009/, 'another frame of the call that waits is refused in time');
is( sql(q{SHOW lock_timeout}), '0', 'the setting is as it was');

# call after call of one lane
my $call = "SELECT count(*) FROM message_bus.relay('{1}', ARRAY['\\x01'::bytea || "
  . "convert_to(\$f\$$blocked\$f\$, 'UTF8')]);\n";
my $time = "SELECT extract(epoch FROM clock_timestamp());\n";
my @times = split /\n/, sql("SET message_bus.relay_role = 'victim'; SET lock_timeout = '500ms';\n"
	  . $call x 2 . $time . $call x 30 . $time);
$took = $times[-1] - $times[2];
cmp_ok($took, '<', 1, sprintf('another 30 calls of 60 requests wait %.1f s in all', $took));

# a wait that ends before the budget does is none for those behind it
$blocker->query_safe('COMMIT');
$blocker->query_safe(q{BEGIN; SELECT message_bus.publish('c', '1', transaction_id => 'u')});
my $slow = relayed('victim', '1,2', sprintf($publish, 1, 'c', 'u'), sprintf($publish, 2, 'c', 'u'));
is(scalar(() = $slow =~ /-32009/g), 2, 'each frame has a budget of its own');
unlike((split /\n/, $slow)[0], qr/All requests of a frame/, 'the first the whole');
$blocker->query_safe('COMMIT');
$blocker->quit;

$node->stop;
done_testing();
