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

import com.google.errorprone.annotations.concurrent.GuardedBy;
import io.airlift.log.Logger;

import java.util.HashMap;
import java.util.Map;
import java.util.Optional;

/**
 * Which run answers at each address of a daemon, from the header of its responses. If a run returns
 * after another one has answered, it had not ended: several daemons answer at one address, as
 * behind a load balancer, where most sinks would be lost.
 */
final class Runs
{
    private static final Logger log = Logger.get(Runs.class);
    /** A response of the previous run may be read late once, but not again and again. */
    private static final int RETURNS_UNTIL_SHARED = 3;

    private static final class Observed
    {
        private String current;
        private String previous;
        private int returns;
    }

    @GuardedBy("this")
    private final Map<Daemon, Observed> daemons = new HashMap<>();

    synchronized void observe(Daemon daemon, String run)
    {
        Observed observed = daemons.computeIfAbsent(daemon, _ -> new Observed());
        if (run.equals(observed.current)) {
            return;
        }
        if (run.equals(observed.previous) && ++observed.returns == RETURNS_UNTIL_SHARED) {
            log.warn("Several Stopover daemons answer at %s (runs %s and %s), so the requests of a"
                            + " sink do not all reach the daemon that holds its pages: name each"
                            + " daemon in stopover.uris, or a name that has all their addresses",
                    daemon, observed.previous, observed.current);
        }
        observed.previous = observed.current;
        observed.current = run;
    }

    /** The run that answered last; empty before the first response. */
    synchronized Optional<String> current(Daemon daemon)
    {
        return Optional.ofNullable(daemons.get(daemon)).map(observed -> observed.current);
    }
}
