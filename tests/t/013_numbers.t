# tests/t/013_numbers.t
#
# Row numbers: few are used whoever publishes to whatever, what is not used
# goes back, and what a transaction holds up are its own channels.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('numbers');

# sql returns what a statement returns.
sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# used returns how many row numbers something has used.
sub used
{
	my ($function) = @_;
	my $query =
	  q{SELECT sum(rows_reserved) FROM message_bus.segments WHERE state = 'open'};
	my $before = sql($query);

	$function->();
	return sql($query) - $before;
}

# claimed returns the payloads that a claim gets, in the order of the ids, and
# acks them.
sub claimed
{
	my ($channel, $subscription) = @_;
	my @payloads;

	for (;;)
	{
		my $got = sql(
			"WITH c AS MATERIALIZED (SELECT * FROM message_bus.claim('$channel', "
			  . "'$subscription', 1000)), a AS MATERIALIZED (SELECT message_bus.ack(lease) "
			  . "FROM (SELECT DISTINCT lease FROM c) l) SELECT string_agg(payload #>> '{}', "
			  . "' ' ORDER BY id) FROM c, (SELECT count(*) FROM a) n");

		return @payloads if $got eq '';
		push @payloads, split ' ', $got;
	}
}

create_bus($node);
sql(q{SELECT count(message_bus.create_channel('n' || i)) FROM generate_series(1, 20000) i;
	SELECT count(message_bus.create_channel('far' || i)) FROM generate_series(1, 300) i;
	SELECT count(message_bus.create_subscription('far' || i, 's')) FROM generate_series(1, 300) i;
	SELECT message_bus.create_channel('turn');
	SELECT message_bus.create_subscription('turn', 's');
	SELECT message_bus.create_subscription('turn', 'ordered', ordered => true);
	SELECT message_bus.create_channel('told');
	SELECT message_bus.create_subscription('told', 's')});

# a session that publishes, and is where others come between
my $one = $node->background_psql('postgres');
my $two = $node->background_psql('postgres');

# two sessions in turn, each to a channel of its own and to that of the other
is( used(
		sub {
			$one->query_safe('BEGIN');
			for my $i (1 .. 100)
			{
				$one->query_safe("SELECT message_bus.publish('n1', '1')");
				$two->query_safe("SELECT message_bus.publish('n2', '1')");
			}
			$one->query_safe('COMMIT');
		}),
	200,
	'ids of other channels between cost nothing');
cmp_ok(
	used(
		sub {
			$one->query_safe('BEGIN');
			for my $i (1 .. 100)
			{
				$one->query_safe("SELECT message_bus.publish('n1', '1')");
				$two->query_safe("SELECT message_bus.publish('n1', '1')");
			}
			$one->query_safe('COMMIT');
		}),
	'<=', 300,
	'nor do more than twice those of the channel');

# more ranges than a backend has places: messages with a key, in turn with
# others to the same channel, of which some are delayed
my %turn;
my $numbers = used(
	sub {
		$one->query_safe('BEGIN');
		for my $i (1 .. 450)
		{
			my $more = $i > 5
			  && $i <= 25 ? "key => 'late', delay => '12 seconds'" : "key => 'b'";

			$one->query_safe(
				"SELECT message_bus.publish('turn', '\"one$i\"', key => 'a')");
			$two->query_safe(
				"SELECT message_bus.publish('turn', '\"two$i\"', $more)");
			# reads over what is delayed, and over more than there are places
			next if $i != 25 && $i != 200 && $i != 450;
			push @{ $turn{$_} }, claimed('turn', $_) foreach qw(s ordered);
		}
		# it is due while others' ranges lie over it
		$node->poll_query_until('postgres',
			'SELECT max(available_at) < now() FROM message_bus.message')
		  || die 'the delayed messages are never due';
		push @{ $turn{$_} }, claimed('turn', $_) foreach qw(s ordered);
		cmp_ok(scalar(@{ $turn{s} }), '>', 200,
			'what others publish between comes meanwhile');
		is(scalar(grep { /^one/ } map { @{ $turn{$_} } } qw(s ordered)),
			0, 'and nothing that is not committed');
		$one->query_safe('COMMIT');
	});
is($numbers, 900, 'keys cost no more numbers than others');
foreach my $subscription (qw(s ordered))
{
	my %count;

	push @{ $turn{$subscription} }, claimed('turn', $subscription);
	$count{$_}++ foreach @{ $turn{$subscription} };
	is(scalar(keys %count), 900, "$subscription: all came");
	is(scalar(@{ $turn{$subscription} }), 900, "$subscription: each once");
}
my @undelayed = grep { $_ <= 5 || $_ > 25 } 1 .. 450;
my %undelayed = map { ("two$_" => 1) } @undelayed;
is( join(' ', grep { $undelayed{$_} } @{ $turn{ordered} }),
	join(' ', map { "two$_" } @undelayed),
	'ordered: a key in the order of its publishes');

# the sessions' time is limited
$_->quit foreach $one, $two;
$one = $node->background_psql('postgres');

# a transaction with more channels than a backend has places
$numbers = used(
	sub {
		$one->query_safe('BEGIN');
		$one->query_safe(
			q{SELECT count(message_bus.publish('n' || i, '1')) FROM generate_series(1, 20000) i}
		);
		sql(q{SELECT count(message_bus.publish('far' || i, '1')) FROM generate_series(1, 300) i}
		);
		cmp_ok(
			sql(q{SELECT sum(n) FROM generate_series(1, 300) i, LATERAL (SELECT count(*) n FROM message_bus.claim('far' || i, 's')) c}
			),
			'>=', 290,
			'20,000 channels hold up few of the others');
		is( sql(q{SELECT count(*) FROM message_bus.peek('n20000', (SELECT max(id) - 20300 FROM message_bus.message))}),
			0, 'and all of their own');
		$one->query_safe('COMMIT');
	});
is($numbers, 20300, 'and cost a number a message');
is( sql(q{SELECT sum(n) FROM generate_series(3, 20000) i, LATERAL (SELECT count(*) n FROM message_bus.peek('n' || i)) c}
	),
	19998, 'which all come');
is( sql(q{SELECT sum(n) FROM generate_series(1, 300) i, LATERAL (SELECT count(*) n FROM message_bus.claim('far' || i, 's') c) x}
	) + sql(q{SELECT count(*) FROM message_bus.leases WHERE channel LIKE 'far%'}),
	300, 'and so do the few');

# what is not used goes back, unless a reader was told of it
is( used(
		sub {
			$one->query_safe('BEGIN');
			$one->query_safe(
				q{SELECT count(message_bus.publish('n' || i, '1')) FROM generate_series(1, 1000) i}
			);
			$one->query_safe('ROLLBACK');
		}),
	0,
	'an abort gives back what it reserved');
is( used(
		sub {
			sql(q{SELECT message_bus.publish('n1', '1', transaction_id => 't')})
			  for 1 .. 20;
		}),
	1,
	'so does a duplicate');
$one->query_safe('BEGIN');
$one->query_safe(q{SELECT message_bus.publish('told', '"lost"')});
is(join(' ', claimed('told', 's')), '', 'a reader is told of an open publish');
is(used(sub { $one->query_safe('ROLLBACK') }),
	0, 'which does not go back then');
is(join(' ', claimed('told', 's')), '', 'and is past');
sql(q{SELECT message_bus.publish('told', '"found"')});
is(join(' ', claimed('told', 's')), 'found', 'so that the next is found');

# from many sessions at once, some of which roll back
$node->pgbench(
	'--no-vacuum --client=20 --jobs=2 --transactions=50',
	0,
	[qr{processed: 1000/1000}],
	[qr{^$}],
	'20 sessions publish to 60 channels',
	{
		'013_numbers' => q{
\set n random(1, 60)
\set roll random(1, 5)
BEGIN;
SELECT message_bus.publish('n' || :n, '1', key => :n::text);
SELECT message_bus.publish('n' || :n, '1');
\if :roll = 1
ROLLBACK;
\else
COMMIT;
\endif
}
	});
cmp_ok(
	sql(q{SELECT rows_reserved FROM message_bus.segments WHERE state = 'open'}),
	'<=',
	2 * sql(q{SELECT count(*) FROM message_bus.message}),
	'numbers are at most twice the messages, over all');
is( sql(q{SELECT count(DISTINCT id >> 24) FROM message_bus.message}),
	1, 'which lie in one segment');
my %metric = map { split /\|/ } split /\n/,
  sql(q{SELECT metric, value FROM message_bus.metrics WHERE metric LIKE 'ids%'});
is( $metric{ids_reserved_total} - $metric{ids_returned_total},
	sql(q{SELECT rows_reserved FROM message_bus.segments WHERE state = 'open'}),
	'the metrics say how many');

# all of a segment goes back, after a reader was told of it; then the channel
# moves to a segment below
sql(q{SELECT message_bus.create_channel('moved', ttl => '5 minutes');
	SELECT message_bus.create_subscription('moved', 's')});
$one->query_safe('BEGIN');
$one->query_safe(q{SELECT message_bus.publish('moved', '"lost"')});
$one->query_safe('ROLLBACK');
is( sql(q{SELECT string_agg(rows_reserved::text, ' ' ORDER BY segment_no DESC)
	FROM message_bus.segments WHERE state = 'open'}) =~ /^0 /,
	1, 'all of a new segment has gone back');
is(join(' ', claimed('moved', 's')), '', 'a reader is told of the segment');
sql(q{SELECT message_bus.alter_channel('moved', ttl => '48 hours')});
sql(q{SELECT message_bus.publish('moved', '"found"')});
is(join(' ', claimed('moved', 's')),
	'found', 'and finds what comes to another one');

$one->quit;
$node->stop;
done_testing();
