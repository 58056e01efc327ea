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
import com.google.inject.Inject;
import io.stopover.trino.StopoverConfig;

import java.net.URI;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.LongSupplier;

import static java.util.concurrent.TimeUnit.NANOSECONDS;

/**
 * The daemons in order of preference, and which of them did not serve lately. A daemon that is
 * remembered as down is asked last, not never.
 */
public final class Daemons
{
    private final List<URI> uris;
    private final long downNanos;
    private final LongSupplier nanoTime;
    @GuardedBy("this")
    private final Map<URI, Long> downSince = new HashMap<>();

    @Inject
    public Daemons(StopoverConfig config)
    {
        this(config.getUris(), config.getDaemonCooldown().roundTo(NANOSECONDS), System::nanoTime);
    }

    public Daemons(List<URI> uris, long downNanos, LongSupplier nanoTime)
    {
        this.uris = List.copyOf(uris);
        this.downNanos = downNanos;
        this.nanoTime = nanoTime;
    }

    public List<URI> uris()
    {
        return uris;
    }

    /** All daemons: those that are up in order of preference, then the others. */
    public synchronized List<URI> candidates()
    {
        long now = nanoTime.getAsLong();
        downSince.values().removeIf(since -> now - since >= downNanos);
        List<URI> candidates = new ArrayList<>(uris.size());
        uris.stream().filter(uri -> !downSince.containsKey(uri)).forEach(candidates::add);
        uris.stream().filter(downSince::containsKey).forEach(candidates::add);
        return candidates;
    }

    public synchronized void down(URI uri)
    {
        downSince.put(uri, nanoTime.getAsLong());
    }

    public synchronized void up(URI uri)
    {
        downSince.remove(uri);
    }
}
