/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 */
package io.stopover.trino.client;

import io.stopover.trino.wire.MalformedStreamException;
import org.junit.jupiter.api.Test;

import java.io.IOException;
import java.net.URI;

import static io.stopover.trino.client.FailureKind.CORRUPT;
import static io.stopover.trino.client.FailureKind.DISCONNECTED;
import static io.stopover.trino.client.FailureKind.DRAINING;
import static io.stopover.trino.client.FailureKind.FINAL;
import static io.stopover.trino.client.FailureKind.LOCAL;
import static io.stopover.trino.client.FailureKind.REJECTED;
import static io.stopover.trino.client.FailureKind.UNAUTHORIZED;
import static io.stopover.trino.client.FailureKind.UNAVAILABLE;
import static org.assertj.core.api.Assertions.assertThat;

class TestFailureKind
{
    static final RequestInfo REQUEST = new RequestInfo(
            Daemon.of(URI.create("http://daemon:7077")),
            "POST",
            "/v1/exchanges/exchange/sinks/0/0/finish",
            "0123456789abcdef",
            "worker-1",
            "stopover.write-timeout");

    @Test
    void testProblemsAreClassifiedByTypeThenByRetryable()
    {
        assertThat(kind("draining", true)).isEqualTo(DRAINING);
        assertThat(kind("unauthorized", false)).isEqualTo(UNAUTHORIZED);
        assertThat(kind("forbidden", false)).isEqualTo(UNAUTHORIZED);
        assertThat(kind("exchange-closed", false)).isEqualTo(FINAL);
        assertThat(kind("exchange-conflict", false)).isEqualTo(FINAL);
        assertThat(kind("too-much-stored", false)).isEqualTo(FINAL);
        assertThat(kind("storage-unavailable", true)).isEqualTo(UNAVAILABLE);
        assertThat(kind("overloaded", true)).isEqualTo(UNAVAILABLE);
        assertThat(kind("invalid-handle", false)).isEqualTo(REJECTED);
        assertThat(kind("exchange-not-found", false)).isEqualTo(REJECTED);
        assertThat(kind("a-type-of-a-later-version", true)).isEqualTo(UNAVAILABLE);
        assertThat(kind("a-type-of-a-later-version", false)).isEqualTo(REJECTED);
        assertThat(kind(Problem.UNKNOWN, true)).as("a proxy's 502").isEqualTo(DISCONNECTED);
        assertThat(kind(Problem.UNKNOWN, false)).as("a proxy's 404").isEqualTo(REJECTED);
    }

    @Test
    void testOtherExceptions()
    {
        for (FailureKind kind : FailureKind.values()) {
            assertThat(FailureKind.of(failure(kind))).isEqualTo(kind);
        }
        assertThat(FailureKind.of(new CancelledException())).isEqualTo(LOCAL);
        assertThat(FailureKind.of(new RetriesExhaustedException("", new IOException())))
                .isEqualTo(LOCAL);
        assertThat(FailureKind.of(new MalformedStreamException(""))).isEqualTo(CORRUPT);
        assertThat(FailureKind.of(new MalformedJsonException(""))).isEqualTo(CORRUPT);
        assertThat(FailureKind.of(new DaemonNotTrustedException(REQUEST, new IOException())))
                .isEqualTo(UNAUTHORIZED);
        assertThat(FailureKind.of(new IOException())).isEqualTo(DISCONNECTED);
    }

    private static FailureKind kind(String slug, boolean retryable)
    {
        return FailureKind.of(problem(slug, retryable));
    }

    static ProblemException problem(String slug, boolean retryable)
    {
        return new ProblemException(REQUEST, new Problem(slug, 400, slug, "", retryable));
    }

    /** A failure of the given kind. */
    static IOException failure(FailureKind kind)
    {
        return switch (kind) {
            case LOCAL -> new CancelledException();
            case CORRUPT -> new MalformedStreamException("damaged");
            case DRAINING -> problem("draining", true);
            case UNAVAILABLE -> problem("overloaded", true);
            case UNAUTHORIZED -> problem("unauthorized", false);
            case REJECTED -> problem("invalid-handle", false);
            case FINAL -> problem("exchange-closed", false);
            case REFUSED, UNREACHABLE, TIMED_OUT, DISCONNECTED ->
                    new RequestFailedException(REQUEST, kind, new IOException(kind.name()));
        };
    }
}
