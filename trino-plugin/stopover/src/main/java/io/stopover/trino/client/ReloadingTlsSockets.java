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
import io.stopover.trino.StopoverTlsConfig;
import org.apache.hc.client5.http.ssl.TlsSocketStrategy;
import org.apache.hc.core5.http.protocol.HttpContext;

import javax.net.ssl.SSLSocket;

import java.io.File;
import java.io.IOException;
import java.net.Socket;
import java.util.List;
import java.util.Optional;
import java.util.function.LongSupplier;
import java.util.stream.Stream;

import static java.util.Objects.requireNonNull;
import static java.util.concurrent.TimeUnit.SECONDS;

/**
 * Rereads truststore and keystore when a file has changed, so certificates can be rotated without a
 * restart. A file that cannot be used, for example because it is only half written, leaves the
 * previous ones in force. Open connections are not affected.
 */
final class ReloadingTlsSockets
        implements TlsSocketStrategy
{
    private static final Logger log = Logger.get(ReloadingTlsSockets.class);
    private static final long CHECK_INTERVAL_NANOS = SECONDS.toNanos(1);

    private record Version(File file, long lastModified, long size) {}

    private final StopoverTlsConfig config;
    private final LongSupplier nanoTime;
    @GuardedBy("this")
    private TlsSocketStrategy current;
    @GuardedBy("this")
    private List<Version> versions;
    @GuardedBy("this")
    private long lastCheck;

    ReloadingTlsSockets(StopoverTlsConfig config)
    {
        this(config, System::nanoTime);
    }

    ReloadingTlsSockets(StopoverTlsConfig config, LongSupplier nanoTime)
    {
        this.config = requireNonNull(config, "config is null");
        this.nanoTime = requireNonNull(nanoTime, "nanoTime is null");
        this.versions = versions();
        this.lastCheck = nanoTime.getAsLong();
        this.current = TlsSockets.of(config);
    }

    @Override
    public SSLSocket upgrade(
            Socket socket, String target, int port, Object attachment, HttpContext context)
            throws IOException
    {
        return current().upgrade(socket, target, port, attachment, context);
    }

    private synchronized TlsSocketStrategy current()
    {
        long now = nanoTime.getAsLong();
        if (now - lastCheck >= CHECK_INTERVAL_NANOS) {
            lastCheck = now;
            reloadIfChanged();
        }
        return current;
    }

    @GuardedBy("this")
    private void reloadIfChanged()
    {
        List<Version> found = versions();
        if (found.equals(versions)) {
            return;
        }
        versions = found;
        try {
            current = TlsSockets.of(config);
            log.info("Reloaded the TLS certificates: %s", found);
        }
        catch (IllegalArgumentException e) {
            log.warn(e, "Cannot reload the TLS certificates, still using the previous ones");
        }
    }

    private List<Version> versions()
    {
        return Stream.of(config.getTruststorePath(), config.getKeystorePath())
                .flatMap(Optional::stream)
                .map(file -> new Version(file, file.lastModified(), file.length()))
                .toList();
    }
}
