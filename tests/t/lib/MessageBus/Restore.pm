# tests/t/lib/MessageBus/Restore.pm
#
# What the TAP tests of dumps share.

package MessageBus::Restore;

use strict;
use warnings;

use Exporter 'import';
use MessageBus::Test;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(bus_at restore_ok);

# bus_at makes a bus whose first segment has an ordinal.
sub bus_at
{
	my ($node, $database, $ordinal) = @_;

	$node->safe_psql(
		$database, qq{
		BEGIN;
		CREATE EXTENSION message_bus;
		UPDATE message_bus.server_state SET next_segment = $ordinal << 5;
		COMMIT});
	bus_ready($node, $database);
	return;
}

# restore_ok is a test: pg_restore brings a dump, or some of it, into a
# database without an error.
sub restore_ok
{
	my ($node, $database, $dump, $name, @option) = @_;

	command_ok(
		[
			'pg_restore', '--exit-on-error', @option, '--host', $node->host,
			'--port', $node->port, '--dbname', $database, $dump
		],
		$name);
	return;
}

1;
