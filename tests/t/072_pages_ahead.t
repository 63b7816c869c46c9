# tests/t/072_pages_ahead.t
#
# The worker extends the table of an open segment that grows fast, so that
# publishers find empty pages; they use them, and a crash loses nothing but
# room.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('pages_ahead', conf => "synchronous_commit = on\n");

# table_of returns the table of the newest segment.
sub table_of
{
	return $node->safe_psql('postgres',
		q{SELECT 'message_bus.message_' || max(segment_no)
		FROM message_bus.segment});
}

# publish_many publishes n times 100 messages of 1,000 bytes.
sub publish_many
{
	my ($n) = @_;

	$node->safe_psql('postgres', <<SQL);
DO \$\$
BEGIN
	FOR i IN 1 .. $n LOOP
		PERFORM message_bus.publish_batch_bytes('default',
			array_agg(convert_to(rpad(n::text, 1000, 'x'), 'UTF8')))
			FROM generate_series(1, 100) AS n;
		COMMIT;
	END LOOP;
END \$\$
SQL
}

# pages returns how many pages a table has, and the last that has a row.
sub pages
{
	my ($table) = @_;

	return split /\|/, $node->safe_psql('postgres', qq{
		SELECT pg_relation_size('$table') / 8192,
			coalesce(max((ctid::text::point)[0])::int, -1) FROM $table});
}

create_bus($node);
publish_many(1);
my $table = table_of();
my ($few) = pages($table);

cmp_ok($few, '<', 40, 'a table that grew little has no pages ahead');

publish_many(100);
$node->poll_query_until('postgres', qq{
	SELECT pg_relation_size('$table') / 8192 >=
		max((ctid::text::point)[0]) + 32 FROM $table})
  or die "the worker did not extend the table\n";
my ($all, $last) = pages($table);
cmp_ok($all - $last, '<=', 600, 'there is a bound for what is ahead');

# these go into what is ahead; the size says so if it stays
publish_many(2);
my ($then, $used) = pages($table);
cmp_ok($used, '<', $all, 'publishers use the empty pages');

# a crash: the pages may be there or not, no message is lost or in the way
my $count = $node->safe_psql('postgres',
	'SELECT count(*) FROM message_bus.messages WHERE size = 1000');
$node->stop('immediate');
$node->start;
bus_ready($node);
is( $node->safe_psql('postgres', 'SELECT count(*) FROM message_bus.messages WHERE size = 1000'),
	$count, 'no message is lost in a crash');
publish_many(60);
is( $node->safe_psql('postgres', 'SELECT count(*) FROM message_bus.messages WHERE size = 1000'),
	$count + 6000, 'and publishing goes on');
is($node->safe_psql('postgres',
		'SELECT last_error FROM message_bus.worker_status'),
	'', 'the worker had no failure');

$node->stop;
done_testing();
