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

import io.airlift.security.pem.PemReader;
import io.stopover.trino.StopoverTlsConfig;
import org.apache.hc.client5.http.ssl.DefaultClientTlsStrategy;
import org.apache.hc.client5.http.ssl.TlsSocketStrategy;

import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManager;
import javax.net.ssl.TrustManagerFactory;

import java.io.File;
import java.io.IOException;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.util.Optional;

/**
 * TLS from the configured truststore and keystore. Host names are always verified. An unusable
 * store is a configuration error that names its property.
 */
final class TlsSockets
{
    private TlsSockets() {}

    static TlsSocketStrategy of(StopoverTlsConfig config)
    {
        try {
            SSLContext context = SSLContext.getInstance("TLS");
            // null selects the default: no client certificate, the JVM's trusted ones
            context.init(keys(config).orElse(null), trusted(config).orElse(null), null);
            return new DefaultClientTlsStrategy(context);
        }
        catch (GeneralSecurityException e) {
            throw new IllegalArgumentException("cannot set up TLS: " + e.getMessage(), e);
        }
    }

    private static Optional<TrustManager[]> trusted(StopoverTlsConfig config)
            throws GeneralSecurityException
    {
        Optional<File> path = config.getTruststorePath();
        if (path.isEmpty()) {
            return Optional.empty();
        }
        KeyStore store = load("stopover.tls.truststore-path", path.get(), file ->
                PemReader.isPem(file)
                        ? PemReader.loadTrustStore(file)
                        : KeyStore.getInstance(file, password(config.getTruststorePassword())));
        TrustManagerFactory factory =
                TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        factory.init(store);
        return Optional.of(factory.getTrustManagers());
    }

    private static Optional<KeyManager[]> keys(StopoverTlsConfig config)
            throws GeneralSecurityException
    {
        Optional<File> path = config.getKeystorePath();
        if (path.isEmpty()) {
            return Optional.empty();
        }
        Optional<String> password = config.getKeystorePassword();
        KeyManagerFactory factory =
                KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        // a key store loaded from PEM has no password
        load("stopover.tls.keystore-path", path.get(), file -> {
            if (PemReader.isPem(file)) {
                KeyStore store = PemReader.loadKeyStore(file, file, password);
                factory.init(store, new char[0]);
                return store;
            }
            KeyStore store = KeyStore.getInstance(file, password(password));
            factory.init(store, password(password));
            return store;
        });
        return Optional.of(factory.getKeyManagers());
    }

    private static char[] password(Optional<String> password)
    {
        return password.map(String::toCharArray).orElse(null);
    }

    private interface Loader
    {
        KeyStore load(File file)
                throws IOException, GeneralSecurityException;
    }

    private static KeyStore load(String property, File file, Loader loader)
    {
        try {
            return loader.load(file);
        }
        catch (IOException | GeneralSecurityException | RuntimeException e) {
            throw new IllegalArgumentException(
                    "%s: cannot use %s: %s".formatted(property, file, e.getMessage()), e);
        }
    }
}
