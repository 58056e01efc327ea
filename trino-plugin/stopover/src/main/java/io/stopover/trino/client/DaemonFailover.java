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

import com.google.inject.Inject;

import java.io.IOException;
import java.net.URI;

import static java.util.Objects.requireNonNull;

/**
 * Asks one daemon after another, round after round, for what any of them can do and what may be
 * asked twice. Does not decide how long: the {@link Backoff} does.
 */
public final class DaemonFailover
{
    public interface Operation<T>
    {
        T ask(URI daemon)
                throws IOException;
    }

    private final Daemons daemons;

    @Inject
    public DaemonFailover(Daemons daemons)
    {
        this.daemons = requireNonNull(daemons, "daemons is null");
    }

    public Daemons daemons()
    {
        return daemons;
    }

    public <T> T call(Operation<T> operation, Backoff backoff, Cancellation cancellation)
            throws IOException
    {
        while (true) {
            IOException failure = null;
            for (URI daemon : daemons.candidates()) {
                try {
                    T result = operation.ask(daemon);
                    daemons.up(daemon);
                    return result;
                }
                catch (IOException e) {
                    failure = later(failure, noteFailure(daemon, e));
                }
            }
            if (!backoff.pause(cancellation)) {
                throw failure;
            }
        }
    }

    /**
     * Remembers what the failure says about the daemon; throws it again if asking anybody would not
     * help.
     */
    public IOException noteFailure(URI daemon, IOException failure)
            throws IOException
    {
        switch (failure) {
            case IOException e when e instanceof NotRetryable -> throw e;
            case ProblemException problem -> {
                if (problem.problem().is("draining")) {
                    daemons.down(daemon);
                }
                if (!problem.problem().retryable()) {
                    throw problem;
                }
            }
            case DaemonUnreachableException _ -> daemons.down(daemon);
            default -> {}
        }
        return failure;
    }

    private static IOException later(IOException first, IOException next)
    {
        if (first != null && first != next) {
            next.addSuppressed(first);
        }
        return next;
    }
}
