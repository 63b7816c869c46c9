# tests/t/013_columns.t
#
# The numbers of columns that the extension's headers give are those of the
# tables it makes.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# where a table's columns are, and how their names begin there
my @tables = (
	[ 'channel', 'base/columns.h', 'MBUS_CHANNEL_' ],
	[ 'channel_grant', 'base/columns.h', 'MBUS_GRANT_' ],
	[ 'subscription', 'base/columns.h', 'MBUS_SUBSCRIPTION_' ],
	[ 'expired', 'base/columns.h', 'MBUS_EXPIRED_' ],
	[ 'publisher', 'base/columns.h', 'MBUS_PUBLISHER_' ],
	[ 'segment', 'base/columns.h', 'MBUS_SEGMENT_' ],
	[ 'segment_era', 'base/columns.h', 'MBUS_ENTERED_' ],
	[ 'error', 'base/columns.h', 'MBUS_ERROR_' ],
	[ 'log_state', 'base/columns.h', 'MBUS_STATE_' ],
	[ 'log_key', 'base/columns.h', 'MBUS_SIGNER_' ],
	[ 'log_tile', 'base/columns.h', 'MBUS_TILE_' ],
	[ 'log_run', 'base/columns.h', 'MBUS_RUN_' ],
	[ 'log_action', 'base/columns.h', 'MBUS_ACTION_' ],
	[ 'log_checkpoint', 'base/columns.h', 'MBUS_LOGGED_' ],
	[ 'log_witness', 'base/columns.h', 'MBUS_WITNESS_' ],
	[ 'log_cosignature', 'base/columns.h', 'MBUS_COSIGNED_' ],
	[ 'jwt_key', 'base/columns.h', 'MBUS_JWT_KEY_' ],
	[ 'body_key', 'base/columns.h', 'MBUS_BODY_KEY_' ],
	[ 'session_end', 'base/columns.h', 'MBUS_SESSION_END_' ],
	[ 'quarantine', 'base/columns.h', 'MBUS_QUARANTINED_' ],
	[ 'body_hold', 'base/columns.h', 'MBUS_HOLD_' ],
	[ 'body_moved', 'base/columns.h', 'MBUS_MOVED_' ],
	[ 'upload', 'base/columns.h', 'MBUS_UPLOAD_' ],
	[ 'upload_end', 'base/columns.h', 'MBUS_ENDED_' ],
	[ 'upload_hash', 'base/columns.h', 'MBUS_HASHED_' ],
	[ 'message', 'segment/leaf.h', 'MBUS_COL_' ],
	[ 'event', 'segment/leaf.h', 'MBUS_EVENT_' ],
	[ 'ack', 'segment/leaf.h', 'MBUS_ACK_' ],
	[ 'failure', 'segment/leaf.h', 'MBUS_FAILURE_' ],
);

my $node = bus_node('columns');

create_bus($node);
foreach my $table (@tables)
{
	my ($name, $header, $prefix) = @$table;

	is(header_columns($header, $prefix),
		table_columns($name, $prefix),
		"$header has the columns of message_bus.$name");
}

# every constant of columns.h is one of these
my %known = map { $_->[2] => 1 } @tables;
my @strange = grep { !$known{s/^(MBUS_JWT_KEY_|MBUS_BODY_KEY_|MBUS_SESSION_END_|MBUS_[A-Z]+_).*/$1/r} }
  grep { /^MBUS_/ } keys %{ constants('base/columns.h') };
is("@strange", '', 'base/columns.h has no columns of another table');

done_testing();

# constants returns a header's enumeration constants and their values.
sub constants
{
	my ($header) = @_;
	my $text = slurp_file("$ENV{MBUS_TREE}/extension/$header");
	my %value;

	$text =~ s{/\*.*?\*/}{}sg;
	while ($text =~ /^enum\s*\{(.*?)\}/msg)
	{
		my $next = 0;

		foreach my $item (split /,/, $1)
		{
			my ($name, $is) = $item =~ /^\s*(\w+)(?:\s*=\s*(\w+))?\s*$/
			  or die "$header: \"$item\"";

			$next = $value{$is} // $is if defined $is;
			$value{$name} = $next++;
		}
	}
	return \%value;
}

# header_columns returns "number name" of each column, in order.
sub header_columns
{
	my ($header, $prefix) = @_;
	my $value = constants($header);

	return join "\n", sort by_number map { "$value->{$_} $_" }
	  grep { /^\Q$prefix\E/ && !/_COLUMNS$/ } keys %$value;
}

# table_columns returns the same of the table in the database.  What a
# column's name repeats of the table's is not in the constant.
sub table_columns
{
	my ($table, $prefix) = @_;
	my @columns = split /\n/, $node->safe_psql(
		'postgres', qq{
		SELECT attnum || ' ' || '$prefix' ||
			upper(regexp_replace(attname, '^${table}_', ''))
		FROM pg_attribute
		WHERE attrelid = 'message_bus.$table'::regclass
			AND attnum > 0 AND NOT attisdropped});

	return join "\n", sort by_number @columns;
}

sub by_number
{
	return ($a =~ /(\d+)/)[0] <=> ($b =~ /(\d+)/)[0];
}
