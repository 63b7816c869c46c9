# 070_rooms.t
#     tools/rooms finds each thing that a tree of rooms may not do.

use strict;
use warnings;

use File::Basename qw(dirname);
use File::Path qw(make_path);
use File::Temp qw(tempdir);
use Test::More;

my %good = (
	'ROOMS' => "# low and high\nlow:\nhigh: low\n"
	  . "<lib.h>: low\n<ssl/>: high/tls\n",
	'main.c' => qq{#include "high/top.h"\n#include "low/deep.h"\n},
	'main.h' => '',
	'low/deep.c' => qq{#include "low/deep.h"\n#include <lib.h>\n},
	'low/deep.h' => '',
	'low/deep_internal.h' => qq{#include "low/deep.h"\n},
	'high/top.c' => qq{#include "high/top.h"\n#include "low/deep.h"\n}
	  . qq{#include <stdio.h>\n#include "library/of_others.h"\n},
	'high/top.h' => '',
	'high/tls.c' => "#include <ssl/ssl.h>\n");

# rooms runs the script on a tree of these files, and returns what it finds.
sub rooms
{
	my (%files) = (%good, @_);
	my $tree = tempdir(CLEANUP => 1);
	my ($out, $status);

	foreach my $path (grep { defined $files{$_} } keys %files)
	{
		make_path(dirname("$tree/$path"));
		open(my $file, '>', "$tree/$path") || die "$path: $!";
		print $file $files{$path};
		close($file);
	}
	$out = qx("$ENV{MBUS_TREE}/tools/rooms" "$tree" 2>&1);
	$status = $? >> 8;
	$out =~ s/\Q$tree\E/TREE/g;
	return "$status\n$out";
}

# finds tells that the script complains of these files in these words.
sub finds
{
	my ($name, $wanted, %files) = @_;

	is(rooms(%files), "1\n$wanted\n", $name);
}

is(rooms(), "0\n", 'a tree that keeps its rules is silent');

finds('a room does not use what it may not',
	'rooms: TREE/low/deep.c: includes "high/top.h", which low/ may not',
	'low/deep.c' => qq{#include "high/top.h"\n},
	'high/top.c' => '');
finds(
	'an internal header is for its room',
	'rooms: TREE/high/top.c: includes "low/deep_internal.h" of another room',
	'high/top.c' => qq{#\tinclude "low/deep_internal.h"\n});
finds('nor does a file outside the rooms see it',
	'rooms: TREE/main.c: includes "low/deep_internal.h" of another room',
	'main.c' => qq{#include "low/deep_internal.h"\n});
finds('a room does not use what lies outside the rooms',
	'rooms: TREE/low/deep.c: includes "main.h", which is of no room',
	'low/deep.c' => qq{#include "main.h"\n},
	'main.c' => '');
finds('an include says the room',
	'rooms: TREE/high/tls.c: includes "top.h" without its room',
	'high/tls.c' => qq{#include "top.h"\n});
finds(
	'no files include each other in a circle',
	"rooms: TREE: these include each other in a circle:\n"
	  . "  low/deep\n  low/other",
	'low/deep.c' => qq{#include "low/other.h"\n},
	'low/other.h' => qq{#include "low/deep.h"\n});
finds(
	'nor do rooms use each other in one',
	"rooms: TREE/ROOMS: these use each other in a circle:\n  high\n  low",
	'ROOMS' => "low: high\nhigh: low\n<lib.h>: low\n<ssl/>: high/tls\n");
finds(
	'a path does not lead round the rooms',
	join("\n",
		map { qq{rooms: TREE/high/top.c: includes "$_", which is no plain path} }
		  '../low/deep.h', 'low/../low/deep.h', './top.h'),
	'high/top.c' => qq{#include "../low/deep.h"\n}
	  . qq{#include "low/../low/deep.h"\n#include "./top.h"\n});
finds('nor do other brackets',
	'rooms: TREE/low/deep.c: includes "high/top.h", which low/ may not',
	'low/deep.c' => "#include <high/top.h>\n",
	'high/top.c' => '');
finds('a library in quotes is one',
	'rooms: TREE/high/top.c: includes <lib.h>, which it may not',
	'high/top.c' => qq{#include "lib.h"\n});
finds(
	'a library is seen by its room alone',
	"rooms: TREE/high/top.c: includes <lib.h>, which it may not\n"
	  . 'rooms: TREE/main.c: includes <lib.h>, which it may not',
	'high/top.c' => "#include <lib.h>\n",
	'main.c' => "#include <lib.h>\n");
finds('and by its file alone',
	'rooms: TREE/high/top.c: includes <ssl/err.h>, which it may not',
	'high/top.c' => "#include <ssl/err.h>\n");
finds('every room is in ROOMS',
	'rooms: TREE/new/room.c: room "new" is not in ROOMS',
	'new/room.c' => "int i;\n");
finds(
	'ROOMS names nothing that is not there',
	join("\n",
		'rooms: TREE/ROOMS: there is no "attic"',
		'rooms: TREE/ROOMS: there is no "cellar"',
		'rooms: TREE/ROOMS: there is no "low/door"',
		'rooms: TREE/ROOMS: what is "high low"?'),
	'ROOMS' => "low:\nhigh: low attic\ncellar: low\n<lib.h>: low low/door\n"
	  . "<ssl/>: high/tls\nhigh low\n");
finds('a tree has ROOMS', 'rooms: TREE has no ROOMS', 'ROOMS' => undef);

done_testing();
