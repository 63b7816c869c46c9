# tests/t/028_restored_many.t
#
# Restored segments that cannot be taken in do not keep back others; and more of
# them than there is room for.

use strict;
use warnings;

use MessageBus::Delivery;
use MessageBus::Restore;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('node',
	databases => [qw(old new)],
	conf => "message_bus.worker_interval = 50ms\n"
	  . "message_bus.segment_max_rows = 16\nmax_locks_per_transaction = 1024\n");
my $dump = $node->basedir . '/dump';

# query returns what a query of the new database returns.
sub query
{
	my ($sql) = @_;

	return $node->safe_psql('new', $sql);
}

# restore runs pg_restore into the new database.
sub restore
{
	my ($name, @option) = @_;

	restore_ok($node, 'new', $dump, $name, @option);
	return;
}

# settled tells how many segments of a list the worker has taken in.
sub settled
{
	my $tables = join ', ',
	  map { "'message_bus.message_$_'::regclass" } @_;

	return query(
		qq{SELECT count(*) FROM pg_depend WHERE classid = 'pg_class'::regclass
			AND objid IN ($tables) AND refclassid = 'pg_extension'::regclass});
}

# failures counts what the log says of a segment.
sub failures
{
	my ($segment) = @_;

	return scalar(
		() = slurp_file($node->logfile) =~ /while taking in segment $segment\b/g);
}

$node->safe_psql('postgres', "CREATE DATABASE $_") foreach qw(old new);
create_bus($node, 'old');
$node->safe_psql('old',
	q{SELECT message_bus.create_channel('c', ttl => '3 days');
	SELECT message_bus.create_subscription('c', 's')});
my @segments;

while (@segments < 4)
{
	$node->safe_psql('old', q{SELECT message_bus.publish('c', '1')});
	@segments = split /\n/, $node->safe_psql('old',
		q{SELECT DISTINCT id >> 24 FROM message_bus.message
		JOIN message_bus.channel USING (channel_id) WHERE name = 'c' ORDER BY 1});
}
# a number that is of no epoch
$node->safe_psql('old',
	qq{INSERT INTO message_bus.failure (message_id, at, no, lease, subscription_id,
		attempt, kind, role)
	SELECT $_\::bigint << 24, now(), 9223372036854775807, 1, 1, 1, 'nacked', 'nobody'})
  foreach @segments[ 0, 1 ];
command_ok(
	[
		'pg_dump', '--format=custom', "--file=$dump", '--host',
		$node->host, '--port', $node->port, 'old'
	],
	'pg_dump');
restore('the schema', '--schema-only');
# or the segments are another bus's
restore('the channels', '--data-only',
	map { "--table=$_" } qw(channel subscription));

sub data
{
	my ($segment) = @_;

	restore("the data of $segment", '--data-only',
		map { "--table=${_}_$segment" } qw(ack failure event message secret));
	return;
}

data($_) foreach @segments[ 0, 1 ];
wait_for('failures', sub { failures($segments[1]) >= 8 });
cmp_ok(abs(failures($segments[0]) - failures($segments[1])),
	'<=', 2, 'each is tried');
my $before = failures($segments[0]) + failures($segments[1]);

data($_) foreach @segments[ 2, 3 ];
my $until = time + 5;
select undef, undef, undef, 0.1
  while settled(@segments[ 2, 3 ]) < 2 && time < $until;
is(settled(@segments[ 2, 3 ]), 2,
	'others are taken in at once, behind those that fail');
is(settled(@segments[ 0, 1 ]), 0, 'which are not');

# more than there is room for
query(
	q{DO $$BEGIN
		FOR n IN 1 .. 4097 LOOP
			EXECUTE format('CREATE TABLE message_bus.message_%s (id bigint)',
				1000000 + n * 32);
		END LOOP;
	END$$});
wait_for(
	'the log to tell',
	sub {
		slurp_file($node->logfile) =~
		  /message_bus takes in 4096 of \d+ segments that are being restored/;
	});
ok(1, 'the log tells when there is no room for more');
is( scalar(
		() = slurp_file($node->logfile) =~ /message_bus takes in 4096 of/g),
	1,
	'once');
is( query(q{SELECT message_bus.publish('default', '1') > 0}),
	't', 'the bus is at work');

$node->stop;
done_testing();
