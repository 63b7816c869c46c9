# tests/t/027_named_ids.t
#
# Ids that a restore names above all segments: what is published from its
# commit on is above them, and what it rolls back uses up no numbers.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('node', conf => "message_bus.worker_interval = 50ms\n");

# query returns what a query returns.
sub query
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# start is a COPY of a subscription that starts at an ordinal.
sub start
{
	my ($name, $ordinal) = @_;

	return q{COPY message_bus.subscription (subscription_id, channel_id, name,
		owner, ordered, start_id) FROM stdin;
} . join("\t", $ordinal, 1, $name,
		query('SELECT current_user::regrole::oid'),
		'f', $ordinal * 2**29) . "\n\\.\n";
}

# next_ordinal returns that of the next segment, and passes some of the worker.
sub next_ordinal
{
	my $passes = query('SELECT passes FROM message_bus.worker_status');

	wait_for('passes of the worker',
		sub {
			query('SELECT passes FROM message_bus.worker_status') > $passes + 20;
		});
	return query('SELECT next_segment >> 5 FROM message_bus.server_state');
}

# published publishes, and returns the ordinal.
sub published
{
	return query(q{SELECT message_bus.publish('default', '1') >> 29});
}

create_bus($node);
my $here = published();
my $before = next_ordinal();

# rolled back, in whole or in part, and not ended
$node->safe_psql('postgres', 'BEGIN; ' . start('a', 5000) . 'ROLLBACK');
is(next_ordinal(), $before, 'a start that is rolled back uses up no numbers');
is(published(), $here, 'publishers go on where they are');
$node->safe_psql('postgres',
	'BEGIN; SAVEPOINT s; ' . start('a', 6000) . 'ROLLBACK TO s; COMMIT');
is(next_ordinal(), $before, 'nor one of a savepoint');

my $file = $node->basedir . '/rows';

append_to_file($file, start('a', 7000) =~ s/^.*?;\n//sr =~ s/\\\.\n//r);

my $copy = qq{COPY message_bus.subscription (subscription_id, channel_id, name,
	owner, ordered, start_id) FROM '$file'};
my $open = $node->background_psql('postgres', on_error_stop => 0);

$open->query_safe("BEGIN; $copy");
is(next_ordinal(), $before, 'nor one that is not committed yet');
is(published(), $here, 'publishers go on where they are, too');

# its commit fails, as late as it can
query('CREATE TABLE read_by (n integer);
	CREATE TABLE written (n integer)');
$open->query_safe('ROLLBACK');
my $other = $node->background_psql('postgres', on_error_stop => 0);

foreach my $session ($open, $other)
{
	$session->query_safe('BEGIN ISOLATION LEVEL SERIALIZABLE;
		SELECT count(*) FROM read_by; SELECT count(*) FROM written');
}
$open->query_safe("$copy; INSERT INTO written VALUES (1)");
$other->query_safe('INSERT INTO read_by VALUES (1)');
$other->query_safe('COMMIT');
$open->{stderr} = '';
$open->query('COMMIT');
like($open->{stderr}, qr/could not serialize/, 'a commit that fails');
is(next_ordinal(), $before, 'uses up no numbers');
is(published(), $here, 'nor a publisher after it');
$open->quit;
$other->quit;

# committed
query($copy);
my $first = published();
cmp_ok($first, '>=', 7000, 'one that is committed does');
is(published(), $first, 'publishers go on there');
is(next_ordinal(), $first, 'and no more than the one segment is opened');
is( query(
		q{SELECT count(*) FROM message_bus.claim('default', 'a', 10,
			wait => '20 s')}),
	2,
	'and it is delivered');
$node->stop;
done_testing();
