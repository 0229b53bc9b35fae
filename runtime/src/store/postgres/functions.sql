-- What flows read and write, each function for many callers at once: one call is one transaction, and the n-th element of each array
-- belongs to the n-th caller. No two callers of one call name the same code, family, decision or written consent. Each
-- statement of a function sees what was committed before it began (VOLATILE, at READ COMMITTED), so what comes after a lock
-- sees everything that whoever had the lock before has done. The tables are found where they were made, whatever the
-- caller's search path is.
--
-- Rows are found by their keys, however large the tables are, and though the plans are made once, when they may be empty.
-- `OFFSET 0` keeps the database from reading a whole table to answer many EXISTS at once, and no condition is written as that
-- of a partial index is, which would be read from end to end because it ought to be small.
SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', TRUE);

-- Waits for the locks, in the order in which they are named: one order for all.
CREATE FUNCTION hold(p_locks BIGINT[], p_exclusive BOOLEAN[]) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM CASE WHEN l.exclusive THEN pg_advisory_xact_lock(l.name) ELSE pg_advisory_xact_lock_shared(l.name) END
        FROM unnest(p_locks, p_exclusive) AS l(name, exclusive);
END $$;

-- Reads what flows read, each kind by its keys, and the clock. The arrays have an element for each key, kind after kind in the order
-- of the parameters, each array for those kinds that have such a thing: `records` for all but sessions, NULL where there is
-- none; `beside`, the record of the client for decisions and of the grant for refresh tokens, NULL where that is gone; epochs for
-- decisions, consents and refresh tokens; `spent` for codes; `until` and `person_epochs` for sessions, of which each has a key of a
-- reservation and a person; what else there is for refresh tokens. All of it is one moment (STABLE).
CREATE FUNCTION read_rows(
    p_client TEXT[], p_decision BYTEA[], p_consent BYTEA[], p_code BYTEA[], p_refresh BYTEA[], p_reservation BYTEA[],
    p_person TEXT[],
    OUT now BIGINT, OUT records BYTEA[], OUT beside BYTEA[], OUT client_epochs BIGINT[], OUT subject_epochs BIGINT[],
    OUT consent_epochs BIGINT[], OUT spent BOOLEAN[], OUT standing BOOLEAN[], OUT generation BIGINT[], OUT retired BIGINT[],
    OUT request BYTEA[], OUT repeats BIGINT[], OUT leaf BIGINT[], OUT until BIGINT[], OUT person_epochs BIGINT[]
) RETURNS RECORD LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    found BYTEA[];
    of_grants BYTEA[];
    clients_epochs BIGINT[];
    subjects_epochs BIGINT[];
    consents_epochs BIGINT[];
BEGIN
    now := (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT;
    IF cardinality(p_client) > 0 THEN
        SELECT array_agg(r.record) INTO records FROM (SELECT t.record
            FROM unnest(p_client) WITH ORDINALITY AS u(key, nth) LEFT JOIN clients t ON t.client_id = u.key ORDER BY u.nth) AS r;
    END IF;
    IF cardinality(p_decision) > 0 THEN
        SELECT array_agg(r.record), array_agg(r.client), array_agg(r.client_epoch), array_agg(r.subject_epoch),
                array_agg(r.consent_epoch)
            INTO found, beside, clients_epochs, subjects_epochs, consents_epochs
            FROM (SELECT t.record, (SELECT c.record FROM clients c WHERE c.client_id = t.client_id) AS client,
                COALESCE((SELECT e.epoch FROM epochs e
                    WHERE e.kind = 1 AND e.subject = '' AND e.client_id = t.client_id), 0) AS client_epoch,
                COALESCE((SELECT e.epoch FROM epochs e
                    WHERE e.kind = 2 AND e.subject = t.subject AND e.client_id = ''), 0) AS subject_epoch,
                COALESCE((SELECT e.epoch FROM epochs e
                    WHERE e.kind = 3 AND e.subject = t.subject AND e.client_id = t.client_id), 0) AS consent_epoch
                FROM unnest(p_decision) WITH ORDINALITY AS u(key, nth) LEFT JOIN decisions t ON t.key = u.key ORDER BY u.nth) AS r;
        records := records || found;
        client_epochs := client_epochs || clients_epochs;
        subject_epochs := subject_epochs || subjects_epochs;
        consent_epochs := consent_epochs || consents_epochs;
    END IF;
    IF cardinality(p_consent) > 0 THEN
        SELECT array_agg(r.record), array_agg(r.client_epoch), array_agg(r.subject_epoch), array_agg(r.consent_epoch)
            INTO found, clients_epochs, subjects_epochs, consents_epochs
            FROM (SELECT t.record, COALESCE((SELECT e.epoch FROM epochs e
                    WHERE e.kind = 1 AND e.subject = '' AND e.client_id = t.client_id), 0) AS client_epoch,
                COALESCE((SELECT e.epoch FROM epochs e
                    WHERE e.kind = 2 AND e.subject = t.subject AND e.client_id = ''), 0) AS subject_epoch,
                COALESCE((SELECT e.epoch FROM epochs e
                    WHERE e.kind = 3 AND e.subject = t.subject AND e.client_id = t.client_id), 0) AS consent_epoch
                FROM unnest(p_consent) WITH ORDINALITY AS u(key, nth) LEFT JOIN consents t ON t.key = u.key ORDER BY u.nth) AS r;
        records := records || found;
        client_epochs := client_epochs || clients_epochs;
        subject_epochs := subject_epochs || subjects_epochs;
        consent_epochs := consent_epochs || consents_epochs;
    END IF;
    IF cardinality(p_code) > 0 THEN
        SELECT array_agg(r.record), array_agg(r.spent) INTO found, spent FROM (SELECT t.record, t.spent
            FROM unnest(p_code) WITH ORDINALITY AS u(key, nth) LEFT JOIN codes t ON t.digest = u.key ORDER BY u.nth) AS r;
        records := records || found;
    END IF;
    IF cardinality(p_refresh) > 0 THEN
        SELECT array_agg(r.record), array_agg(r.granted), array_agg(r.client_epoch), array_agg(r.subject_epoch), array_agg(r.consent_epoch),
                array_agg(r.standing), array_agg(r.generation), array_agg(r.retired), array_agg(r.request),
                array_agg(r.repeats), array_agg(r.leaf)
            INTO found, of_grants, clients_epochs, subjects_epochs, consents_epochs, standing, generation, retired, request,
                repeats, leaf
            FROM (SELECT t.record, g.record AS granted, t.generation, t.retired, t.request, t.repeats,
                (SELECT CASE WHEN l.retired IS NULL THEN l.generation END FROM refresh_tokens l
                    WHERE l.family = t.family ORDER BY l.generation DESC LIMIT 1) AS leaf,
                g.family IS NOT NULL
                    AND NOT EXISTS (SELECT 1 FROM tombstones WHERE tombstones.family = g.family OFFSET 0) AS standing,
                COALESCE((SELECT e.epoch FROM epochs e
                    WHERE e.kind = 1 AND e.subject = '' AND e.client_id = g.client_id), 0) AS client_epoch,
                COALESCE((SELECT e.epoch FROM epochs e
                    WHERE e.kind = 2 AND e.subject = g.subject AND e.client_id = ''), 0) AS subject_epoch,
                COALESCE((SELECT e.epoch FROM epochs e
                    WHERE e.kind = 3 AND e.subject = g.subject AND e.client_id = g.client_id), 0) AS consent_epoch
                FROM unnest(p_refresh) WITH ORDINALITY AS u(key, nth) LEFT JOIN refresh_tokens t ON t.digest = u.key
                LEFT JOIN grants g ON g.family = t.family ORDER BY u.nth) AS r;
        records := records || found;
        beside := beside || of_grants;
        client_epochs := client_epochs || clients_epochs;
        subject_epochs := subject_epochs || subjects_epochs;
        consent_epochs := consent_epochs || consents_epochs;
    END IF;
    IF cardinality(p_reservation) > 0 THEN
        SELECT array_agg(r.until), array_agg(r.epoch) INTO until, person_epochs FROM (SELECT t.until,
                GREATEST(COALESCE((SELECT e.epoch FROM epochs e
                    WHERE e.kind = 2 AND e.subject = u.person AND e.client_id = ''), 0),
                COALESCE((SELECT e.epoch FROM epochs e
                    WHERE e.kind = 4 AND e.subject = '' AND e.client_id = ''), 0)) AS epoch
            FROM unnest(p_reservation, p_person) WITH ORDINALITY AS u(key, person, nth)
            LEFT JOIN reservations t ON t.key = u.key ORDER BY u.nth) AS r;
    END IF;
END $$;

-- Inserts pending decisions where nothing has to give way. Gives the keys of those inserted.
CREATE FUNCTION insert_decisions(
    p_most BIGINT, p_most_of_a_person BIGINT,
    p_key BYTEA[], p_subject TEXT[], p_client TEXT[], p_agent BYTEA[], p_not_after BIGINT[], p_record BYTEA[]
) RETURNS BYTEA[] LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    waiting BIGINT;
    inserted BYTEA[];
BEGIN
    SELECT count(*) INTO waiting FROM (SELECT 1 FROM decisions LIMIT p_most) AS few;
    -- Each counts those before it in the arrays as if they came before.
    WITH people AS MATERIALIZED (
        SELECT person.subject, (SELECT count(*) FROM (SELECT 1 FROM decisions WHERE decisions.subject = person.subject
            LIMIT p_most_of_a_person) AS few) AS own
        FROM (SELECT DISTINCT u.subject FROM unnest(p_subject) AS u(subject)) AS person
    ), done AS (
        INSERT INTO decisions (key, subject, client_id, agent, not_after, record)
        SELECT a.key, a.subject, a.client, a.agent, a.not_after, a.record
        FROM (SELECT u.*, row_number() OVER (PARTITION BY u.subject ORDER BY u.nth) AS own_nth
            FROM unnest(p_key, p_subject, p_client, p_agent, p_not_after, p_record)
            WITH ORDINALITY AS u(key, subject, client, agent, not_after, record, nth)) AS a
        JOIN people ON people.subject = a.subject
        WHERE waiting + a.nth <= p_most AND people.own + a.own_nth <= p_most_of_a_person
        RETURNING decisions.key
    )
    SELECT array_agg(done.key) INTO inserted FROM done;
    RETURN COALESCE(inserted, '{}');
END $$;

-- Consumes pending decisions, or rests on remembered consents; remembers, and stores codes. Gives for each 2 where that
-- was stored, 1 where the decision is somebody else's, 0 where there is nothing to rest on.
CREATE FUNCTION take_decisions(
    p_decision BYTEA[], p_agent BYTEA[], p_subject TEXT[], p_consent BYTEA[],
    p_key BYTEA[], p_key_subject TEXT[], p_key_client TEXT[], p_key_not_after BIGINT[], p_key_record BYTEA[],
    p_code BYTEA[], p_family BYTEA[], p_code_client TEXT[], p_code_subject TEXT[], p_expires BIGINT[],
    p_not_after BIGINT[], p_code_record BYTEA[]
) RETURNS BIGINT[] LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    taken BIGINT[];
    outcomes BIGINT[];
BEGIN
    -- I-P9: by the browser and person of the page, in the order of the keys: no two calls wait for each other.
    WITH done AS (
        DELETE FROM decisions USING (SELECT u.* FROM unnest(p_decision, p_agent, p_subject)
            WITH ORDINALITY AS u(key, agent, subject, nth) WHERE u.key IS NOT NULL ORDER BY u.key) AS a
        WHERE decisions.key = a.key AND decisions.agent = a.agent AND decisions.subject = a.subject
        RETURNING a.nth
    )
    SELECT array_agg(done.nth) INTO taken FROM done;
    SELECT array_agg(CASE
            WHEN a.nth = ANY (taken) THEN 2
            WHEN EXISTS (SELECT 1 FROM decisions WHERE decisions.key = a.decision OFFSET 0) THEN 1
            WHEN a.decision IS NULL AND EXISTS (SELECT 1 FROM consents WHERE consents.key = a.consent OFFSET 0) THEN 2
            ELSE 0 END ORDER BY a.nth)
        INTO outcomes FROM unnest(p_decision, p_consent) WITH ORDINALITY AS a(decision, consent, nth);
    INSERT INTO consents (key, subject, client_id, not_after, record)
        SELECT a.key, a.subject, a.client, a.not_after, a.record
        FROM unnest(outcomes, p_key, p_key_subject, p_key_client, p_key_not_after, p_key_record)
            AS a(outcome, key, subject, client, not_after, record)
        WHERE a.outcome = 2 AND a.key IS NOT NULL ORDER BY a.key
        ON CONFLICT (key) DO UPDATE SET not_after = excluded.not_after, record = excluded.record;
    INSERT INTO codes (digest, family, spent, client_id, subject, expires, not_after, record)
        SELECT a.code, a.family, FALSE, a.client, a.subject, a.expires, a.not_after, a.record
        FROM unnest(outcomes, p_code, p_family, p_code_client, p_code_subject, p_expires, p_not_after, p_code_record)
            AS a(outcome, code, family, client, subject, expires, not_after, record)
        WHERE a.outcome = 2 AND a.code IS NOT NULL;
    RETURN outcomes;
END $$;

-- Notes that clients were used, once in so many seconds: every token of a client would write this one row, and wait for
-- whoever wrote it last. In the order of the keys: no two calls wait for each other.
CREATE FUNCTION clients_used(p_now BIGINT, p_noted BIGINT, p_client TEXT[], p_outcomes BIGINT[], p_least BIGINT) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE clients SET used = p_now FROM (SELECT DISTINCT a.client FROM unnest(p_outcomes, p_client) AS a(outcome, client)
            WHERE a.outcome >= p_least ORDER BY a.client) AS those
        WHERE clients.client_id = those.client AND (clients.used IS NULL OR clients.used <= p_now - p_noted);
END $$;

-- Redeems codes for grants. Gives for each 3 where it was redeemed, 2 where something was revoked or the family has begun
-- already, 1 where the code is spent, 0 where there is no such code of the family.
CREATE FUNCTION redeem_codes(
    p_locks BIGINT[], p_exclusive BOOLEAN[], p_now BIGINT, p_noted BIGINT,
    p_code BYTEA[], p_family BYTEA[], p_client TEXT[], p_subject TEXT[],
    p_client_epoch BIGINT[], p_subject_epoch BIGINT[], p_consent_epoch BIGINT[], p_not_after BIGINT[], p_grant BYTEA[],
    p_refresh BYTEA[], p_generation BIGINT[], p_refresh_record BYTEA[],
    p_access BYTEA[], p_access_not_after BIGINT[], p_access_record BYTEA[]
) RETURNS BIGINT[] LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    outcomes BIGINT[];
    redeemed BIGINT;
    spent BIGINT;
    at BIGINT;
BEGIN
    PERFORM hold(p_locks, p_exclusive);
    at := COALESCE(p_now, (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT);
    SELECT array_agg(a.outcome ORDER BY a.nth), count(*) FILTER (WHERE a.outcome = 3) INTO outcomes, redeemed FROM (
        SELECT u.nth, CASE
            WHEN codes.family IS DISTINCT FROM u.family THEN 0
            -- OAUTH21-4.1.3-1, I-C1
            WHEN codes.spent THEN 1
            -- Pending, and nothing revoked since.
            WHEN NOT EXISTS (SELECT 1 FROM grants WHERE grants.family = u.family OFFSET 0)
                AND NOT EXISTS (SELECT 1 FROM tombstones WHERE tombstones.family = u.family OFFSET 0)
                AND u.client_epoch = COALESCE((SELECT e.epoch FROM epochs e
                    WHERE e.kind = 1 AND e.subject = '' AND e.client_id = u.client), 0)
                AND u.subject_epoch = COALESCE((SELECT e.epoch FROM epochs e
                    WHERE e.kind = 2 AND e.subject = u.subject AND e.client_id = ''), 0)
                AND u.consent_epoch = COALESCE((SELECT e.epoch FROM epochs e
                    WHERE e.kind = 3 AND e.subject = u.subject AND e.client_id = u.client), 0)
                THEN 3
            ELSE 2 END AS outcome
        FROM unnest(p_code, p_family, p_client, p_subject, p_client_epoch, p_subject_epoch, p_consent_epoch)
            WITH ORDINALITY AS u(code, family, client, subject, client_epoch, subject_epoch, consent_epoch, nth)
        LEFT JOIN codes ON codes.digest = u.code
        OFFSET 0) AS a;
    IF redeemed = 0 THEN
        RETURN outcomes;
    END IF;
    UPDATE codes SET spent = TRUE FROM unnest(outcomes, p_code) AS a(outcome, code)
        WHERE a.outcome = 3 AND codes.digest = a.code AND codes.spent = (a.outcome <> 3);
    GET DIAGNOSTICS spent = ROW_COUNT;
    IF spent <> redeemed THEN
        RAISE EXCEPTION 'a code has gone meanwhile' USING ERRCODE = 'serialization_failure';
    END IF;
    INSERT INTO grants (family, client_id, subject, not_after, record)
        SELECT a.family, a.client, a.subject, a.not_after, a.record
        FROM unnest(outcomes, p_family, p_client, p_subject, p_not_after, p_grant)
            AS a(outcome, family, client, subject, not_after, record)
        WHERE a.outcome = 3;
    INSERT INTO refresh_tokens (digest, family, generation, repeats, not_after, record)
        SELECT a.refresh, a.family, a.generation, 0, a.not_after, a.record
        FROM unnest(outcomes, p_refresh, p_family, p_generation, p_not_after, p_refresh_record)
            AS a(outcome, refresh, family, generation, not_after, record)
        WHERE a.outcome = 3 AND a.refresh IS NOT NULL;
    INSERT INTO access_tokens (digest, family, not_after, record)
        SELECT a.access, a.family, a.not_after, a.record
        FROM unnest(outcomes, p_access, p_family, p_access_not_after, p_access_record)
            AS a(outcome, access, family, not_after, record)
        WHERE a.outcome = 3 AND a.access IS NOT NULL;
    PERFORM clients_used(at / 1000000, p_noted, p_client, outcomes, 3);
    RETURN outcomes;
END $$;

-- Replaces refresh tokens by their successors, or repeats such an answer. Gives for each 4 where it was repeated, 3 where it
-- was replaced, 2 where something was revoked, 1 where the token is retired, 0 where there is no such token of the family.
CREATE FUNCTION rotate_refresh_tokens(
    p_locks BIGINT[], p_exclusive BOOLEAN[], p_now BIGINT, p_noted BIGINT,
    p_presented BYTEA[], p_generation BIGINT[], p_family BYTEA[], p_client TEXT[], p_subject TEXT[],
    p_client_epoch BIGINT[], p_subject_epoch BIGINT[], p_consent_epoch BIGINT[], p_request BYTEA[], p_repeats BIGINT[],
    p_successor BYTEA[], p_successor_generation BIGINT[], p_not_after BIGINT[], p_record BYTEA[],
    p_access BYTEA[], p_access_not_after BIGINT[], p_access_record BYTEA[]
) RETURNS BIGINT[] LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
DECLARE
    outcomes BIGINT[];
    rotated BIGINT;
    repeated BIGINT;
    changed BIGINT;
    at BIGINT;
BEGIN
    PERFORM hold(p_locks, p_exclusive);
    at := COALESCE(p_now, (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT);
    SELECT array_agg(a.outcome ORDER BY a.nth), count(*) FILTER (WHERE a.outcome = 3),
            count(*) FILTER (WHERE a.outcome = 4)
        INTO outcomes, rotated, repeated FROM (
        SELECT u.nth, CASE
            WHEN r.family IS DISTINCT FROM u.family OR r.generation IS DISTINCT FROM u.generation THEN 0
            WHEN NOT (EXISTS (SELECT 1 FROM grants WHERE grants.family = u.family OFFSET 0)
                AND NOT EXISTS (SELECT 1 FROM tombstones WHERE tombstones.family = u.family OFFSET 0)
                AND u.client_epoch = COALESCE((SELECT e.epoch FROM epochs e
                    WHERE e.kind = 1 AND e.subject = '' AND e.client_id = u.client), 0)
                AND u.subject_epoch = COALESCE((SELECT e.epoch FROM epochs e
                    WHERE e.kind = 2 AND e.subject = u.subject AND e.client_id = ''), 0)
                AND u.consent_epoch = COALESCE((SELECT e.epoch FROM epochs e
                    WHERE e.kind = 3 AND e.subject = u.subject AND e.client_id = u.client), 0)
                ) THEN 2
            -- OAUTH21-4.3.1-3, I-T1: the leaf of that generation and no other.
            WHEN u.repeats IS NULL AND r.retired IS NULL
                AND u.generation = (SELECT max(leaf.generation) FROM refresh_tokens leaf WHERE leaf.family = u.family) THEN 3
            -- I-T3
            WHEN u.repeats IS NOT NULL AND r.retired IS NOT NULL AND r.repeats < u.repeats
                AND u.successor = (SELECT CASE WHEN leaf.retired IS NULL THEN leaf.digest END FROM refresh_tokens leaf
                    WHERE leaf.family = u.family ORDER BY leaf.generation DESC LIMIT 1) THEN 4
            ELSE 1 END AS outcome
        FROM unnest(p_presented, p_generation, p_family, p_client, p_subject, p_client_epoch, p_subject_epoch,
                p_consent_epoch, p_repeats, p_successor)
            WITH ORDINALITY AS u(presented, generation, family, client, subject, client_epoch, subject_epoch,
                consent_epoch, repeats, successor, nth)
        LEFT JOIN refresh_tokens r ON r.digest = u.presented
        OFFSET 0) AS a;
    IF rotated + repeated = 0 THEN
        RETURN outcomes;
    END IF;
    IF rotated > 0 THEN
        UPDATE refresh_tokens r SET retired = at, request = a.request
            FROM unnest(outcomes, p_presented, p_request) AS a(outcome, presented, request)
            WHERE a.outcome = 3 AND r.digest = a.presented AND COALESCE(r.retired, 0) = 0;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> rotated THEN
            RAISE EXCEPTION 'a refresh token has gone meanwhile' USING ERRCODE = 'serialization_failure';
        END IF;
        INSERT INTO refresh_tokens (digest, family, generation, repeats, not_after, record)
            SELECT a.successor, a.family, a.generation, 0, a.not_after, a.record
            FROM unnest(outcomes, p_successor, p_family, p_successor_generation, p_not_after, p_record)
                AS a(outcome, successor, family, generation, not_after, record)
            WHERE a.outcome = 3;
    END IF;
    IF repeated > 0 THEN
        UPDATE refresh_tokens r SET repeats = r.repeats + 1
            FROM unnest(outcomes, p_presented) AS a(outcome, presented)
            WHERE a.outcome = 4 AND r.digest = a.presented;
        GET DIAGNOSTICS changed = ROW_COUNT;
        IF changed <> repeated THEN
            RAISE EXCEPTION 'a refresh token has gone meanwhile' USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;
    INSERT INTO access_tokens (digest, family, not_after, record)
        SELECT a.access, a.family, a.not_after, a.record
        FROM unnest(outcomes, p_access, p_family, p_access_not_after, p_access_record)
            AS a(outcome, access, family, not_after, record)
        WHERE a.outcome >= 3 AND a.access IS NOT NULL;
    PERFORM clients_used(at / 1000000, p_noted, p_client, outcomes, 3);
    RETURN outcomes;
END $$;
