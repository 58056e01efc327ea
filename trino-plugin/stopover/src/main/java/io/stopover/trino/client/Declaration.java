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

import java.util.Collection;
import java.util.Optional;

/**
 * The daemon at which an attempt is declared, and whether that is to be withdrawn. A withdrawal
 * never overtakes its declaration. Thread-safe.
 */
final class Declaration
{
    private enum State
    {
        NONE, IN_FLIGHT, SENT, WITHDRAWN
    }

    @GuardedBy("this")
    private State state = State.NONE;
    @GuardedBy("this")
    private Daemon daemon;

    /** Whether to send the declaration: false once it was withdrawn. Called once. */
    synchronized boolean start(Daemon target)
    {
        if (state == State.WITHDRAWN) {
            return false;
        }
        state = State.IN_FLIGHT;
        daemon = target;
        return true;
    }

    /** The declaration was sent; returns the daemon if it has been withdrawn meanwhile. */
    synchronized Optional<Daemon> sent()
    {
        if (state == State.WITHDRAWN) {
            return Optional.of(daemon);
        }
        state = State.SENT;
        return Optional.empty();
    }

    /**
     * Withdraws the declaration, unless the daemon is one of those that have or had the attempt.
     * Returns the daemon to inform now; one whose declaration is in flight is informed afterwards.
     */
    synchronized Optional<Daemon> withdrawUnlessAt(Collection<Daemon> daemons)
    {
        if (state == State.WITHDRAWN || (daemon != null && daemons.contains(daemon))) {
            return Optional.empty();
        }
        boolean now = state == State.SENT;
        state = State.WITHDRAWN;
        return now ? Optional.of(daemon) : Optional.empty();
    }
}
