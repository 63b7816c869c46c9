"""How many row numbers and segments the stress test has used, against what was stored.

A row number is used when something was published under it, or a later one of the same segment was: what is reserved and not
used goes back where it can.  So a segment has used as many as its highest id tells; the open ones tell what is reserved.

At most two are used for each message that was stored or was tried to be: messages of transactions that were rolled back, and of
those that a crash has cut off, had numbers, too, which others may have gone past.  The remainder of a segment that was open at a
crash is not used: its numbers are never given out.  What crashes use up is segments: each begins one more in every series that is
in use.  Segments of channels with a series of their own (churn.py) come and go; they are left out.
"""

USED = """
    SELECT count(*), count(DISTINCT s.series), coalesce(sum(n), 0)::bigint,
        coalesce(sum(greatest(high - (s.segment_no::bigint << 24) + 1, v.rows_reserved, 0)), 0)::bigint
    FROM message_bus.segment s
    JOIN message_bus.segments v USING (segment_no)
    LEFT JOIN (SELECT (id >> 24)::int AS segment_no, max(id) AS high, count(*) AS n FROM message_bus.message GROUP BY 1) m
        USING (segment_no)
    WHERE s.channel_id IS NULL"""


class Numbers:
    def __init__(self, client, checker, segment_rows, crashes):
        self.wrong = []
        segments, series, stored, used = client.rows(USED)[0]
        newest = client.one('SELECT max(segment_no) FROM message_bus.segment')
        tried = stored + checker.not_stored
        most = (crashes + 2) * series + 2 * stored // segment_rows
        self.figures = dict(stored=stored, numbers_used=used, numbers_a_message=round(used / max(stored, 1), 3),
                            segments=segments, series=series, newest_segment=newest)
        if used > 2 * tried:
            self.wrong.append('%d row numbers are used for %d messages stored and %d others' % (used, stored, tried - stored))
        if segments > most:
            self.wrong.append('%d segments of %d series after %d crashes, for %d messages' % (segments, series, crashes, stored))
